"""The sections of params.yaml but for the baselines: every knob, its type and its range."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from satjepa.config.errors import refuse
from satjepa.config.fields import (
    Commit,
    Count,
    Distinct,
    Pair,
    Positive,
    Section,
    Share,
    Text,
    Triple,
    Weight,
    Whole,
)


class Data(Section):
    """Where the imagery is, how it is cut into patches, and what is held out."""

    root: Text
    presets: Distinct[Text]
    patch: Count
    stride: Count
    history: Annotated[int, Field(ge=0, le=4)]
    split: Literal["region", "year", "published"]
    val_regions: Whole
    test_regions: Count
    on_bad_scene: Literal["error", "exclude"]
    white: Annotated[float, Field(gt=0, le=1)] | None


class Captions(Section):
    """Who writes the captions, and how much of them is kept."""

    captioner: Text
    prompt_version: Count
    max_length: Annotated[int, Field(ge=1, le=512)]
    lengths: Triple[Count] | None


class Vlm(Section):
    """A vision-language model that writes the captions, where one does."""

    prompts: Text | None
    revision: Commit | None
    batch: Count


class Backbone(Section):
    """The frozen Stable Diffusion 3 and its LoRA."""

    path: Text
    revision: Text | None
    dtype: Literal["float32", "bfloat16"]
    layout: Text | None
    lora_rank: Count
    lora_alpha: Positive
    lora_targets: Distinct[Text]


class Pretrain(Section):
    """How the tiny backbone is made."""

    folder: Text
    regions: Count
    windows: Count
    vae_steps: Count
    vae_batch: Count
    vae_lr: Positive
    polish_steps: Count
    polish_lr: Positive
    polish_lpips: Weight
    layers: Count
    heads: Count
    steps: Count
    batch: Count
    lr: Positive
    muon_lr: Positive
    drop_text: Share
    drop_layout: Share


class _Heads(Section):
    """Something with attention: its width is shared among its heads."""

    dim: Count
    heads: Count

    @model_validator(mode="after")
    def _width_is_shared_evenly(self) -> Self:
        if self.dim % self.heads:
            raise refuse("dim", self.dim, f"a multiple of its heads ({self.heads})")
        return self


class Encoder(_Heads):
    """The I-JEPA encoder; `patch` is the side of a token in pixels."""

    patch: Count
    depth: Count


class Predictor(_Heads):
    """The I-JEPA predictor."""

    depth: Count


class Attention(_Heads):
    """A stack of attention layers: the caption forecaster, the adapter."""

    layers: Count


class Model(Section):
    """What is built and which of its streams are on."""

    variant: Literal["satjepa", "published"]
    encoder: Encoder
    predictor: Predictor
    forecaster: Attention
    adapter: Attention
    reader: Attention | None
    use_jepa: bool
    use_captions: bool
    coarse_rgb: Whole
    context_merge: Count


class Loss(Section):
    """Weights of the losses' parts."""

    l1: Weight
    cosine: Weight
    contrastive: Weight
    spatial: Weight
    feature: Weight
    temperature: Positive
    ijepa: Weight
    readout: Weight
    layout: Weight
    sd: Weight
    caption: Weight


class Lesson(Section):
    """The reader's lesson, between I-JEPA's own steps and the joint ones; 0 steps are none."""

    windows: Count
    steps: Whole
    batch: Count


class Train(Section):
    """The joint training loop."""

    steps: Count
    jepa_share: Share
    lesson: Lesson
    batch: Count
    lr: Positive
    muon_lr: Positive | None
    warmup: Share
    lr_ends: Pair[Share]
    weight_decay: Pair[Weight]
    grad_clip: Positive
    target_ema: Pair[Share]
    weight_ema: Share
    caption_dropout: Share
    token_dropout: Share
    true_captions: Share
    quarter_dropout: Share
    timestep_mean: float
    timestep_std: Positive
    precision: Literal["float32", "bf16"]
    compile: Literal["auto", "on", "off"]
    checkpointing: bool
    workers: Whole
    log_every: Count
    checkpoint_every: Count

    @model_validator(mode="after")
    def _the_target_grows_slower(self) -> Self:
        if self.target_ema[0] > self.target_ema[1]:
            raise refuse("target_ema", list(self.target_ema), "[from, to] with from <= to")
        return self


class Sample(Section):
    """The sampler: what forecasts are drawn with, whoever trained the model."""

    steps: Count
    guidance: Weight
    samples: Count
    strength: Annotated[float, Field(gt=0, le=1)]
    compile: Literal["auto", "on", "off"]


class Writer(_Heads):
    """The decoder that writes captions of t+1, how it is trained, and how it is drawn from."""

    layers: Count
    windows: Whole
    steps: Count
    batch: Count
    lr: Positive
    muon_lr: Positive | None
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]


class Eval(Section):
    """What is scored, and with which weights."""

    batch: Count
    max_patches: Whole
    change_threshold: Share
    lpips_trunk: Text | None
    fid_weights: Text | None
