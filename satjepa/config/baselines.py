"""The `baselines` section of params.yaml: what is compared with, one arm a row of the table.

    baselines:
      train: {...}                  # `Fit`: how all arms are trained ...
      arms:
        unet:
          kind: unet                # one of `Kind`
          title: U-Net              # in the table; if left out, the name of the arm
          model: {...}              # every size of that kind: what decides the weights
          train: {lr: 2.0e-3}       # ... but for what an arm says itself
          sample: {}                # how forecasts are drawn: trains nothing anew

To add a baseline: its sizes in `satjepa.config.sizes`, a section class and its name in `Arm` here,
its network in satjepa/baselines/ with a case in `satjepa.baselines.arms.build_arm`, an arm in
params.yaml. A new file in satjepa/baselines/ is code that all baselines stand on: they train again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, create_model, model_validator

from satjepa.config.errors import ConfigError, in_words, refuse
from satjepa.config.fields import Count, Positive, Section, Share, Text, Weight, Whole
from satjepa.config.sizes import (
    MCVDSample,
    MCVDSizes,
    Nothing,
    PredRNNSizes,
    SD35Sample,
    SD35Sizes,
    SimVPSizes,
    UNetSizes,
)

if TYPE_CHECKING:
    from satjepa.config.sections import Data

Name = Annotated[str, Field(pattern=r"^\w+$")]


class Fit(Section):
    """How a baseline is trained.

    Every `val_every` steps, a divisor of `steps`, a line of log.csv ends, with the loss on
    `val_patches` of the validation part (0: all); the weights with the lowest are kept. schedule:
    of the learning rate; `warmup` is in steps and for "warmup" alone. grad_clip 0: no clipping. ema
    0: no averaged weights.
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

    @model_validator(mode="after")
    def _ends_on_a_validation(self) -> Self:
        if self.steps % self.val_every:
            raise refuse("val_every", self.val_every, f"a divisor of {self.steps}")
        return self


# The same keys, each of which an arm may say: what it leaves out is said by `baselines.train`.
FitChanges = create_model(
    "FitChanges",
    __base__=Section,
    **{name: (field.rebuild_annotation(), None) for name, field in Fit.model_fields.items()},
)


class _Arm(Section):
    """One baseline: `kind`, `title`, `model`, `train`, `sample`; each kind says what these hold."""

    trained: ClassVar[bool] = True
    ensemble: ClassVar[bool] = False  # draws one of many futures, rather than the one answer it has

    kind: str
    title: Text | None = None

    def check_against(self, data: Data) -> None:
        """ConfigError, its key below the arm, if the sizes do not fit patch and history."""
        sizes = self.model
        if (history := getattr(sizes, "history", 0)) > data.history:
            accepted = f"at most data.history ({data.history})"
            raise ConfigError("model.history", in_words(history), accepted)
        key, divisor = getattr(sizes, "divisor", lambda: ("", 1))()
        if data.patch % divisor:
            accepted = f"such that data.patch ({data.patch}) is a multiple of {divisor}"
            raise ConfigError(f"model.{key}", in_words(getattr(sizes, key)), accepted)


class _Untrained(_Arm):
    trained: ClassVar[bool] = False
    model: Nothing
    train: Nothing
    sample: Nothing


class Climatology(_Untrained):
    """`satjepa.baselines.trend.Climatology`."""

    kind: Literal["climatology"]


class Trend(_Untrained):
    """`satjepa.baselines.trend.LinearTrend`."""

    kind: Literal["trend"]


class UNet(_Arm):
    """`satjepa.baselines.unet.UNet`."""

    kind: Literal["unet"]
    model: UNetSizes
    train: FitChanges
    sample: Nothing


class SimVP(_Arm):
    """`satjepa.baselines.simvp.SimVP`."""

    kind: Literal["simvp"]
    model: SimVPSizes
    train: FitChanges
    sample: Nothing


class PredRNN(_Arm):
    """`satjepa.baselines.predrnn.PredRNN`."""

    kind: Literal["predrnn"]
    model: PredRNNSizes
    train: FitChanges
    sample: Nothing


class MCVD(_Arm):
    """`satjepa.baselines.mcvd.MCVD`."""

    ensemble: ClassVar[bool] = True
    kind: Literal["mcvd"]
    model: MCVDSizes
    train: FitChanges
    sample: MCVDSample


class SD35(_Arm):
    """`satjepa.baselines.sd35.SD35` as it is: the frozen backbone."""

    trained: ClassVar[bool] = False
    ensemble: ClassVar[bool] = True
    kind: Literal["sd35"]
    model: Nothing
    train: Nothing
    sample: SD35Sample


class SD35LoRA(_Arm):
    """`satjepa.baselines.sd35.SD35` with a LoRA that is trained."""

    ensemble: ClassVar[bool] = True
    kind: Literal["sd35_lora"]
    model: SD35Sizes
    train: FitChanges
    sample: SD35Sample


Arm = Climatology | Trend | UNet | SimVP | PredRNN | MCVD | SD35 | SD35LoRA
Kind = Annotated[Arm, Field(discriminator="kind")]


class Baselines(Section):
    """How all arms are trained, and the arms by name."""

    train: Fit
    arms: dict[Name, Kind]

    @model_validator(mode="after")
    def _every_arm_ends_on_a_validation(self) -> Self:
        for name in self.arms:
            merged = self._merged(name)
            if merged["steps"] % merged["val_every"]:
                key = f"arms.{name}.train.val_every"
                raise refuse(key, merged["val_every"], f"a divisor of {merged['steps']}")
        return self

    def _merged(self, name: str) -> dict[str, Any]:
        return self.train.model_dump() | self.arms[name].train.model_dump(exclude_unset=True)

    def fit(self, name: str) -> Fit | None:
        """How an arm is trained: `train`, but for what it says itself; None where it is not."""
        return Fit.model_validate(self._merged(name)) if self.arms[name].trained else None

    def title(self, name: str) -> str:
        """What the arm is called in tables."""
        return self.arms[name].title or name

    def read(self, name: str, data: Data) -> Arm:
        """One arm, checked against patch and history of the `data` section. Raises ConfigError.

        Not checked before: a run with a shorter history or other patches that uses no such arm must
        not be refused.
        """
        if name not in self.arms:
            accepted = ", ".join(self.arms) or "(there is none)"
            raise ConfigError(f"baselines.arms.{name}", "an unknown arm", accepted)
        try:
            self.arms[name].check_against(data)
        except ConfigError as error:
            error.key = f"baselines.arms.{name}.{error.key}"
            raise
        return self.arms[name]
