"""The `baselines` section of params.yaml: what is compared with, one arm a row of the table.

    baselines:
      train: {...}                 # `Fit`: how all arms are trained ...
      arms:
        unet:
          kind: unet               # a key of SIZES, below
          title: U-Net             # in the table; if left out, the name of the arm
          model: {...}             # every key of that kind's sizes
          train: {lr: 2.0e-3}      # ... but for what an arm says itself
        sd35: {kind: sd35, model: {...}}   # not tuned, as it has no `train`
        trend: {kind: trend}       # has no sizes, and nothing to train

Strict, as all of params.yaml: a mistake is a `ConfigError` that names the dotted key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from satjepa.config.typed import ConfigError, Count, Positive, Range, Share, Weight, Whole, build

if TYPE_CHECKING:
    from satjepa.config import Params


@dataclass(frozen=True)
class Fit:
    """How a baseline is trained.

    Every `val_every` steps, a divisor of `steps`, a line of log.csv ends, with the loss on
    `val_patches` of the validation part (0: all); the weights with the lowest are kept. schedule:
    of the learning rate; `warmup` is in steps
    and for "warmup" alone. grad_clip 0: no clipping. ema 0: no averaged weights.
    """

    steps: Count
    batch: Count
    lr: Positive
    schedule: Literal["onecycle", "warmup"]
    warmup: Whole
    weight_decay: Weight
    grad_clip: Weight
    ema: Share
    val_every: Count
    val_patches: Whole
    checkpoint_every: Count


@dataclass(frozen=True)
class NoSizes:
    """Of what has no sizes."""


@dataclass(frozen=True)
class PredRNNSizes:
    """`satjepa.baselines.predrnn.PredRNN`."""

    hidden: Count
    layers: Count
    kernel: Count
    patch: Count
    layer_norm: bool
    decouple: Weight
    sampling: Literal["none", "scheduled", "reverse"]
    sampling_at: tuple[Count, Count, Count]
    history: Whole


@dataclass(frozen=True)
class SimVPSizes:
    """`satjepa.baselines.simvp.SimVP`."""

    hid_s: Count
    hid_t: Count
    n_s: Annotated[int, Range(2)]
    n_t: Annotated[int, Range(2)]
    drop_path: Share | None
    history: Whole


@dataclass(frozen=True)
class UNetSizes:
    """`satjepa.baselines.unet.UNet`."""

    width: Count
    levels: Annotated[int, Range(2)]
    history: Whole


@dataclass(frozen=True)
class MCVDSizes:
    """`satjepa.baselines.mcvd.MCVD`."""

    width: Count
    mult: list[Count]
    blocks: Count
    attention: list[Count]
    spade_dim: Whole
    dropout: Share
    mask_embedding: bool
    history: Whole
    mask: Share
    sampler: Literal["ddpm", "ddim"]
    steps: Count
    denoise: Literal["none", "fixed", "reference"]
    clip: bool


@dataclass(frozen=True)
class SD35Sizes:
    """`satjepa.baselines.sd35.SD35`. levels: of the noise, "img2img" as in diffusers' pipeline, or
    "published" as in
    Sat-JEPA-Diff. prompt: one for all places, null for the captions. timesteps, caption_dropout:
    for its training.
    """

    levels: Literal["img2img", "published"]
    steps: Count
    strength: Annotated[float, Range(0, 1, above=True)]
    guidance: Weight
    work_size: Whole
    prompt: str | None
    timesteps: tuple[float, Positive]
    caption_dropout: Share


SIZES = {
    "climatology": NoSizes, "trend": NoSizes, "unet": UNetSizes, "simvp": SimVPSizes,
    "predrnn": PredRNNSizes, "mcvd": MCVDSizes, "sd35": SD35Sizes,
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One baseline. title: in the table. model: keyword arguments of its class. train: None where
    nothing is trained.
    """

    kind: str
    title: str
    model: dict[str, Any]
    train: Fit | None


@dataclass(frozen=True)
class _Section:
    train: Fit
    arms: dict[str, dict[str, Any]]


def arm_names(params: Params) -> tuple[str, ...]:
    """The names of the arms, in the order of the file; none where the section is empty."""
    return tuple(params.baselines["arms"]) if params.baselines else ()


def read_arm(params: Params, name: str) -> Arm:
    """One arm, checked also against patch and history of the `data` section. Raises ConfigError."""
    arm = _arm(params.baselines, name)
    _require(name, _demands_of_data(arm, params.data.patch, params.data.history))
    return arm


def check_baselines(section: dict[str, Any]) -> None:
    """Check every arm by itself. {} is fine: no baselines. Raises ConfigError."""
    if not section:
        return
    with _below("baselines"):
        build(_Section, section)
    for name in section["arms"]:
        _require(name, _demands(name, _arm(section, name)))


def _arm(section: dict[str, Any], name: str) -> Arm:
    if name not in section["arms"]:
        raise ConfigError(f"baselines.arms.{name}", "an unknown arm", ", ".join(section["arms"]))
    values = section["arms"][name]
    with _below(f"baselines.arms.{name}"):
        kind = values.get("kind")
        if kind not in SIZES:
            raise ConfigError("kind", repr(kind), " | ".join(SIZES))
        if unknown := sorted(values.keys() - {"kind", "title", "model", "train"}):
            raise ConfigError(unknown[0], "an unknown key", "kind, title, model, train")
        title = values.get("title", name)
        if not isinstance(title, str):
            raise ConfigError("title", repr(title), "a text")
        with _below("model"):
            sizes = build(SIZES[kind], values.get("model", {}))
        trains = kind not in ("climatology", "trend") and (kind != "sd35" or "train" in values)
        if "train" in values and not trains:
            raise ConfigError("train", "a mapping", f"nothing: {kind} is not trained")
        own = values.get("train", {})
        if not isinstance(own, dict):
            raise ConfigError(
                "train", repr(own), "a mapping with the keys that differ from baselines.train"
            )
        with _below("train"):
            train = build(Fit, section["train"] | own) if trains else None
    return Arm(kind, title, dataclasses.asdict(sizes), train)


Demands = Iterator[tuple[bool, str, Any, str]]
"""(is it so, key below the arm, what was found, what is accepted): what one field alone cannot know"""


def _require(name: str, demands: Demands) -> None:
    for fine, key, found, accepted in demands:
        if not fine:
            raise ConfigError(f"baselines.arms.{name}{key}", repr(found), accepted)


def _demands(name: str, arm: Arm) -> Demands:
    yield (
        bool(re.fullmatch(r"\w+", name)),
        "",
        name,
        "a name of letters, digits and _, for it names a folder",
    )
    sizes = arm.model
    train = arm.train
    if train is not None:
        yield (
            train.steps % train.val_every == 0,
            ".train.val_every",
            train.val_every,
            f"a divisor of {train.steps}",
        )
    if arm.kind == "simvp":
        yield sizes["n_s"] % 2 == 0, ".model.n_s", sizes["n_s"], "an even number"
    if arm.kind == "unet":
        yield sizes["width"] % 4 == 0, ".model.width", sizes["width"], "a multiple of 4, its groups"
    if arm.kind == "predrnn":
        yield sizes["kernel"] % 2 == 1, ".model.kernel", sizes["kernel"], "an odd number"
        first, second, _ = sizes["sampling_at"]
        yield (
            first < second,
            ".model.sampling_at",
            sizes["sampling_at"],
            "[s1, s2, alpha] with s1 < s2",
        )
    if arm.kind == "mcvd":
        yield 1000 % sizes["steps"] == 0, ".model.steps", sizes["steps"], "a divisor of 1000"


def _demands_of_data(arm: Arm, side: int, history: int) -> Demands:
    sizes = arm.model
    if "history" in sizes:
        yield (
            sizes["history"] <= history,
            ".model.history",
            sizes["history"],
            f"at most data.history ({history})",
        )
    multiple = f"such that data.patch ({side}) is a multiple of "
    if arm.kind == "simvp":
        yield (
            side % 2 ** (sizes["n_s"] // 2) == 0,
            ".model.n_s",
            sizes["n_s"],
            multiple + "2^(n_s/2)",
        )
    if arm.kind == "unet":
        yield (
            side % 2 ** (sizes["levels"] - 1) == 0,
            ".model.levels",
            sizes["levels"],
            multiple + "2^(levels-1)",
        )
    if arm.kind == "predrnn":
        yield side % sizes["patch"] == 0, ".model.patch", sizes["patch"], multiple + "patch"
    if arm.kind == "mcvd":
        yield (
            side % 2 ** (len(sizes["mult"]) - 1) == 0,
            ".model.mult",
            sizes["mult"],
            multiple + "2^(levels-1)",
        )


@contextmanager
def _below(prefix: str) -> Iterator[None]:
    """Within, a ConfigError names its key from `prefix` on."""
    try:
        yield
    except ConfigError as error:
        key = prefix if error.key == "(file)" else f"{prefix}.{error.key}"
        raise ConfigError(
            key, error.found, error.accepted, error.nearest and f"{prefix}.{error.nearest}"
        ) from None
