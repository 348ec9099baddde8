"""params.yaml -> one typed, validated, frozen `Params`.

`satjepa.config.sections` and `satjepa.config.baselines` are the only schema: to add a knob, add one
field there and one line to params.yaml, where a comment says what it means. Every key is required;
an unknown key, a wrong type or a value out of range is a `ConfigError` that names the dotted key,
what was found and what is accepted.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from satjepa.config.baselines import Baselines, Name
from satjepa.config.errors import first_mistake, refuse
from satjepa.config.fields import Distinct, Section, Whole
from satjepa.config.sections import (
    Backbone,
    Captions,
    Data,
    Eval,
    Loss,
    Model,
    Pretrain,
    Sample,
    Train,
    Vlm,
    Writer,
)


class Params(Section):
    """Everything in params.yaml, checked."""

    seed: Whole
    seeds: Distinct[Whole]
    data: Data
    captions: Captions
    vlm: Vlm
    backbone: Backbone
    pretrain: Pretrain
    model: Model
    loss: Loss
    train: Train
    sample: Sample
    writer: Writer
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
    def _parts_that_need_each_other_are_there(self) -> Self:
        model = self.model
        layout = self.backbone.layout
        if model.variant == "published":  # has neither
            return self
        if model.context_merge > 1 and layout is not None:
            accepted = "1 where backbone.layout gives the tokens"
            raise refuse("model.context_merge", model.context_merge, accepted)
        if model.coarse_rgb and not model.use_jepa:
            accepted = "0 without model.use_jepa, whose tokens it is a part of"
            raise refuse("model.coarse_rgb", model.coarse_rgb, accepted)
        return self

    @model_validator(mode="after")
    def _captions_are_no_longer_than_the_text_is_kept(self) -> Self:
        lengths = self.captions.lengths
        most = self.captions.max_length
        if lengths is not None and max(lengths) > most:
            accepted = f"at most captions.max_length ({most}) each"
            raise refuse("captions.lengths", list(lengths), accepted)
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

    def parts(self) -> list[tuple[str, str]]:
        """(preset, part) of all samples there are: others than the first preset are scored only."""
        first, *others = self.data.presets
        return [(first, part) for part in ("train", "val", "test")] + [(p, "test") for p in others]

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
