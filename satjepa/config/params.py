"""params.yaml -> one typed, validated, frozen `Params`.

The dataclasses below are the only schema: to add a knob, add one field here and one line to
params.yaml, where a comment says what it means. Every key is required; an unknown key, a wrong type
or a value out of range is a `ConfigError` that names the dotted key, what was found and what is
accepted.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from satjepa.config.baselines import check_baselines
from satjepa.config.typed import (
    ConfigError,
    Count,
    Positive,
    Range,
    Share,
    Weight,
    Whole,
    build,
    read_yaml,
    with_keys,
)
from satjepa.paths import root


@dataclass(frozen=True)
class Data:
    """Where the imagery is, how it is cut into patches, and what is held out."""

    root: str
    presets: tuple[str, ...]
    patch: Count
    stride: Count
    history: Annotated[int, Range(0, 4)]
    split: Literal["region", "year", "published"]
    val_regions: Whole
    test_regions: Count
    on_bad_scene: Literal["error", "exclude"]
    white: Annotated[float, Range(0, 1, above=True)] | None


@dataclass(frozen=True)
class Captions:
    """Who writes the captions, and how much of them is kept."""

    captioner: str
    prompt_version: Count
    max_length: Annotated[int, Range(1, 512)]
    lengths: tuple[Count, Count, Count] | None


@dataclass(frozen=True)
class Backbone:
    """The frozen Stable Diffusion 3 and its LoRA."""

    path: str
    revision: str | None
    dtype: Literal["float32", "bfloat16"]
    layout: str | None
    lora_rank: Count
    lora_alpha: Positive
    lora_targets: tuple[str, ...]


@dataclass(frozen=True)
class Pretrain:
    """How the tiny backbone is made."""

    folder: str
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


@dataclass(frozen=True)
class Encoder:
    """The I-JEPA encoder."""

    patch: Count
    dim: Count
    depth: Count
    heads: Count


@dataclass(frozen=True)
class Predictor:
    """The I-JEPA predictor."""

    dim: Count
    depth: Count
    heads: Count


@dataclass(frozen=True)
class Attention:
    """A stack of attention layers: the caption forecaster, the adapter."""

    dim: Count
    layers: Count
    heads: Count


@dataclass(frozen=True)
class Model:
    """What is built and which of its streams are on."""

    variant: Literal["satjepa", "published"]
    encoder: Encoder
    predictor: Predictor
    forecaster: Attention
    adapter: Attention
    use_jepa: bool
    use_captions: bool
    coarse_rgb: Whole
    context_merge: Count


@dataclass(frozen=True)
class Loss:
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


@dataclass(frozen=True)
class Train:
    """The joint training loop."""

    steps: Count
    jepa_share: Share
    batch: Count
    lr: Positive
    muon_lr: Positive | None
    warmup: Share
    lr_ends: tuple[Share, Share]
    weight_decay: tuple[Weight, Weight]
    grad_clip: Positive
    target_ema: tuple[Share, Share]
    weight_ema: Share
    caption_dropout: Share
    token_dropout: Share
    timestep_mean: float
    timestep_std: Positive
    precision: Literal["no", "bf16"]
    compile: Literal["auto", "on", "off"]
    checkpointing: bool
    log_every: Count
    checkpoint_every: Count


@dataclass(frozen=True)
class Sample:
    """The sampler."""

    steps: Count
    guidance: Weight
    samples: Count
    strength: Annotated[float, Range(0, 1, above=True)]
    compile: Literal["auto", "on", "off"]


@dataclass(frozen=True)
class Eval:
    """What is scored, and with which weights."""

    batch: Count
    max_patches: Whole
    change_threshold: Share
    lpips_trunk: str | None
    fid_weights: str | None


@dataclass(frozen=True)
class Ablate:
    """The ablations: each arm is a mapping from dotted keys of params.yaml to other values."""

    steps: Count
    seeds: tuple[Whole, ...]
    arms: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Published:
    """The published system, trained and scored beside ours: arms as those of `Ablate`, each a row
    of the table.
    """

    steps: Count
    arms: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Params:
    """Everything in params.yaml, checked. What `baselines` holds: `satjepa.config.baselines`; {}
    for none.
    """

    seed: Whole
    data: Data
    captions: Captions
    backbone: Backbone
    pretrain: Pretrain
    model: Model
    loss: Loss
    train: Train
    sample: Sample
    eval: Eval
    ablate: Ablate
    published: Published
    baselines: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dicts, lists and scalars, as YAML or JSON hold them."""
        return json.loads(_canonical(self))


def load_params(
    path: str | Path | None = None, arm: str | None = None, seed: int | None = None, **dotted: Any
) -> Params:
    """Read and check a params file: `load_params(arm="no_jepa", **{"train.steps": 4})`.

    path: default $SATJEPA_PARAMS (relative to the repository root), else params.yaml of the root.
    arm: one of ablate.arms or published.arms; sets train.steps to that section's steps, then the
    arm's own values.
    seed, dotted: override last; a seed of None leaves the file's.
    Every arm of the file is checked, whichever is asked for. Raises ConfigError.
    """
    path = (
        Path(path) if path is not None else root() / os.environ.get("SATJEPA_PARAMS", "params.yaml")
    )
    try:
        values = read_yaml(path)
        params = from_dict(values)
        sections = {"ablate": params.ablate, "published": params.published}
        arms = {
            name: _with_arm(values, key, name)
            for key, section in sections.items()
            for name in section.arms
        }
        if arm is not None:
            values = arms[arm] if arm in arms else _no_such_arm(arm, arms)
    except ConfigError as error:
        error.source = path
        raise
    return from_dict(with_keys(Params, values, dotted if seed is None else {"seed": seed} | dotted))


def from_dict(values: Any) -> Params:
    """Params from what `Params.as_dict` gave or YAML holds, checked across fields, too; raises
    ConfigError.
    """
    params = build(Params, values)
    model, grid = params.model, params.data.patch / params.model.encoder.patch
    low, high = params.train.target_ema
    arms = [*params.ablate.arms, *params.published.arms]
    odd_names = [name for name in arms if not re.fullmatch(r"\w+", name) or arms.count(name) > 1]
    for fine, key, found, accepted in [
        (
            grid % 1 == 0,
            "data.patch",
            params.data.patch,
            f"a multiple of model.encoder.patch ({model.encoder.patch})",
        ),
        (
            model.coarse_rgb % grid == 0,
            "model.coarse_rgb",
            model.coarse_rgb,
            f"0 or a multiple of {grid:g}",
        ),
        (low <= high, "train.target_ema", [low, high], "[from, to] with from <= to"),
        (
            not odd_names,
            "ablate.arms",
            odd_names,
            "names of letters, digits and _, which published.arms has not, too",
        ),
        *(
            (
                part.dim % part.heads == 0,
                f"model.{name}.dim",
                part.dim,
                f"a multiple of its heads ({part.heads})",
            )
            for name in ("encoder", "predictor", "forecaster", "adapter")
            for part in [getattr(model, name)]
        ),
    ]:
        if not fine:
            raise ConfigError(key, repr(found), accepted)
    check_baselines(params.baselines)
    return params


def digest(obj: Any) -> str:
    """sha256 of the canonical JSON of a section, of the whole Params, or of plain data;
    hexadecimal.
    """
    return hashlib.sha256(_canonical(obj).encode()).hexdigest()


def _canonical(obj: Any) -> str:
    plain = dataclasses.asdict(obj) if dataclasses.is_dataclass(obj) else obj
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _with_arm(values: dict[str, Any], section: str, arm: str) -> dict[str, Any]:
    try:
        steps = {"train.steps": values[section]["steps"]}
        changed = with_keys(Params, values, steps | values[section]["arms"][arm])
        from_dict(changed)
    except ConfigError as error:
        raise ConfigError(
            f"{section}.arms.{arm}.{error.key}", error.found, error.accepted, error.nearest
        ) from None
    return changed


def _no_such_arm(arm: str, arms: Mapping[str, Any]) -> NoReturn:
    nearest = difflib.get_close_matches(arm, arms, 1)
    raise ConfigError(
        "ablate.arms", repr(arm), ", ".join(arms), *(f"ablate.arms.{name}" for name in nearest)
    )
