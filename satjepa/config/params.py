"""params.yaml -> one typed, validated, frozen `Params`.

The sections below are the only schema: to add a knob, add one field here and one line to
params.yaml, where a comment says what it means. Every key is required; an unknown key, a wrong type
or a value out of range is a `ConfigError` that names the dotted key, what was found and what is
accepted.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from satjepa.config.baselines import Baselines, Name
from satjepa.config.errors import first_mistake, refuse
from satjepa.config.fields import (
    Count,
    Distinct,
    Pair,
    Positive,
    Section,
    Share,
    Text,
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
    use_jepa: bool
    use_captions: bool
    coarse_rgb: Whole


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
    sd: Weight
    caption: Weight


class Train(Section):
    """The joint training loop."""

    steps: Count
    jepa_share: Share
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
    timestep_mean: float
    timestep_std: Positive
    precision: Literal["float32", "bf16"]
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


class Eval(Section):
    """What is scored, and with which weights."""

    batch: Count
    max_patches: Whole
    change_threshold: Share
    lpips_trunk: Text | None
    fid_weights: Text | None


class Params(Section):
    """Everything in params.yaml, checked."""

    seed: Whole
    seeds: Distinct[Whole]
    data: Data
    captions: Captions
    backbone: Backbone
    pretrain: Pretrain
    model: Model
    loss: Loss
    train: Train
    sample: Sample
    eval: Eval
    arms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    baselines: Baselines

    @model_validator(mode="after")
    def _patches_are_whole_tokens(self) -> Self:
        patch = self.model.encoder.patch
        grid, rest = divmod(self.data.patch, patch)
        if rest:
            accepted = f"a multiple of model.encoder.patch ({patch})"
            raise refuse("data.patch", self.data.patch, accepted)
        if self.model.coarse_rgb % grid:
            raise refuse("model.coarse_rgb", self.model.coarse_rgb, f"0 or a multiple of {grid}")
        return self

    @model_validator(mode="after")
    def _no_arm_has_the_name_of_a_baseline(self) -> Self:
        if both := sorted(self.arms.keys() & self.baselines.arms):
            raise refuse("arms", both, "names that baselines.arms has not, too: they name folders")
        return self

    @property
    def main_arm(self) -> str:
        """The name of the arm that is the model itself: the first."""
        return next(iter(self.arms))

    def arms_of(self, kind: Literal["ablation", "published"]) -> list[str]:
        """The names of the arms that the model itself is compared with."""
        published = [
            name
            for name, changes in self.arms.items()
            if changes.get("model.variant", self.model.variant) == "published"
        ]
        if kind == "published":
            return published
        return [name for name in self.arms if name not in (*published, self.main_arm)]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists and scalars, as YAML or JSON hold them."""
        return self.model_dump(mode="json", exclude_unset=True)


def from_dict(values: Any) -> Params:
    """Params from what `Params.as_dict` gave or YAML holds; raises ConfigError."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise first_mistake(Params, error) from None


def digest(obj: Any) -> str:
    """sha256 of the canonical JSON of a section, of the whole Params, or of plain data."""
    plain = obj.model_dump(mode="json", exclude_unset=True) if isinstance(obj, BaseModel) else obj
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
