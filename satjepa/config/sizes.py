"""Sizes of the baselines, and how those that draw are drawn from: arguments of their classes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from satjepa.config.errors import refuse
from satjepa.config.fields import (
    FROM_LIST,
    Count,
    Positive,
    Section,
    Several,
    Share,
    Triple,
    Weight,
    Whole,
)


class Nothing(Section):
    """Of what has no sizes, or nothing to say of training or sampling."""


class UNetSizes(Section):
    """`satjepa.baselines.unet.UNet`; `width` is a multiple of its 4 groups."""

    width: Annotated[int, Field(ge=1, multiple_of=4)]
    levels: Annotated[int, Field(ge=2)]
    history: Whole

    def divisor(self) -> tuple[str, int]:
        """The key that asks for it, and what the side of a patch must be a multiple of."""
        return "levels", 2 ** (self.levels - 1)


class SimVPSizes(Section):
    """`satjepa.baselines.simvp.SimVP`; `n_s` is even."""

    hid_s: Count
    hid_t: Count
    n_s: Annotated[int, Field(ge=2, multiple_of=2)]
    n_t: Annotated[int, Field(ge=2)]
    drop_path: Share | None
    history: Whole

    def divisor(self) -> tuple[str, int]:
        """As of `UNetSizes`."""
        return "n_s", 2 ** (self.n_s // 2)


class PredRNNSizes(Section):
    """`satjepa.baselines.predrnn.PredRNN`."""

    hidden: Count
    layers: Count
    kernel: Count
    patch: Count
    layer_norm: bool
    decouple: Weight
    sampling: Literal["none", "scheduled", "reverse"]
    sampling_at: Triple[Count]
    history: Whole

    @model_validator(mode="after")
    def _odd_kernel_and_ordered_steps(self) -> Self:
        if self.kernel % 2 == 0:
            raise refuse("kernel", self.kernel, "an odd number")
        if self.sampling_at[0] >= self.sampling_at[1]:
            raise refuse("sampling_at", list(self.sampling_at), "[s1, s2, alpha] with s1 < s2")
        return self

    def divisor(self) -> tuple[str, int]:
        """As of `UNetSizes`."""
        return "patch", self.patch


class MCVDSizes(Section):
    """`satjepa.baselines.mcvd.MCVD`."""

    width: Count
    mult: Several[Count]
    blocks: Count
    attention: Several[Count]
    spade_dim: Whole
    dropout: Share
    mask_embedding: bool
    history: Whole
    mask: Share

    def divisor(self) -> tuple[str, int]:
        """As of `UNetSizes`."""
        return "mult", 2 ** (len(self.mult) - 1)


class MCVDSample(Section):
    """How MCVD draws: `steps`, a divisor of the 1000 of its training."""

    sampler: Literal["ddpm", "ddim"]
    steps: Count
    denoise: Literal["none", "fixed", "reference"]
    clip: bool

    @model_validator(mode="after")
    def _divides_the_training_steps(self) -> Self:
        if 1000 % self.steps:
            raise refuse("steps", self.steps, "a divisor of 1000")
        return self


class SD35Sizes(Section):
    """How `satjepa.baselines.sd35.SD35` is trained, where it is: noise levels, captions dropped."""

    timesteps: Annotated[tuple[float, Positive], FROM_LIST]
    caption_dropout: Share


class SD35Sample(Section):
    """How SD 3.5 goes from image to image.

    levels: of the noise, "img2img" as in diffusers' pipeline, or "published" as in Sat-JEPA-Diff.
    prompt: one for all places, null for the captions.
    """

    levels: Literal["img2img", "published"]
    steps: Count
    strength: Annotated[float, Field(gt=0, le=1)]
    guidance: Weight
    work_size: Whole
    prompt: str | None
