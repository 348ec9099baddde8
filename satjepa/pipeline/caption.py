"""The caption stage: every image that a training, validation or test sample shows, captioned
once.

    python -m satjepa.pipeline.caption                       in one process, as notebook 02 does
    accelerate launch -m satjepa.pipeline.caption            on all GPUs of a machine
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.assemble import captions_file, dataset, local, the_device
from satjepa.captions import rules
from satjepa.captions.outcomes import BatchCaptioner, Outcome, Picture, attempt
from satjepa.captions.table import RULES, rows_of
from satjepa.captions.writing import Captioner, caption_patches
from satjepa.config import ConfigError, Params, load_params
from satjepa.contracts import PatchKey
from satjepa.data.pairs import PairDataset
from satjepa.data.share import Share

if TYPE_CHECKING:
    from satjepa.captions.prompts import Prompts


def all_images(params: Params) -> Iterator[tuple[PairDataset, list[PatchKey]]]:
    """The datasets of every part of every preset that have samples, each with the keys of the
    images it shows.
    """
    for preset, part in params.parts():
        data = dataset(params, part, preset, text=False)
        yield data, data.keys()


def captioner_of(params: Params) -> Captioner | BatchCaptioner:
    """The captioner that `captions.captioner` names: the rules, or a vision-language model by
    folder or id, which takes a batch of images.

    Raises ConfigError where `captions.prompt_version` is another one than that of its sentences or
    prompts, or `vlm.revision` has no meaning; VlmNotFound where the model cannot be read.
    """
    name = params.captions.captioner
    if name == RULES:
        _require_version(params, rules.PROMPT_VERSION, RULES)
        return lambda rgb, valid: rules.caption(rgb, valid, "display")
    from satjepa.captions.vlm import VlmCaptioner

    prompts_of(params)
    return VlmCaptioner.from_pretrained(
        local(name), params.vlm.revision, the_device(), prompts=_prompts_named(params)
    )


def prompts_of(params: Params) -> Prompts:
    """What the vision-language model of `captions.captioner` is asked. Raises ConfigError."""
    from satjepa.captions.prompts import load_prompts

    captioner = params.captions.captioner
    if params.vlm.revision is not None and Path(local(captioner)).is_dir():
        accepted = f"null: {captioner} is a folder, and what lies there is what is taken"
        raise ConfigError("vlm.revision", repr(params.vlm.revision), accepted)
    name = _prompts_named(params)
    prompts = load_prompts(name)
    _require_version(params, prompts.version, f"the prompts {name}, which are put to")
    return prompts


def _prompts_named(params: Params) -> str:
    """The name of the prompts, or their file's path; by default those that fit the model."""
    from satjepa.captions.vlm import default_prompts

    name = params.vlm.prompts
    if name is None:
        return default_prompts(local(params.captions.captioner))
    return local(name) if name.endswith((".yaml", ".yml")) else name


def _require_version(params: Params, version: int, whose: str) -> None:
    if (asked := params.captions.prompt_version) != version:
        whose = whose if whose == RULES else f"{whose} {params.captions.captioner}"
        raise ConfigError(
            "captions.prompt_version", str(asked), f"{version}, the version of {whose}"
        )


def caption_all(params: Params, progress: bool = True) -> int:
    """Add to the captioner's table (`captions_file`) what it lacks; returns how many captions were
    added. The captioner is loaded where one is lacking.

    Raises CaptionsFailed where a model left images without captions, all others written.
    """
    share = Share.mine()
    sources = list(all_images(params))
    captioner = cache(lambda: captioner_of(params))
    by_rule = params.captions.captioner == RULES

    def patches() -> Iterator[tuple[PatchKey, np.ndarray, np.ndarray]]:
        for data, keys in sources:
            for key in keys:
                rgb, valid = data.image(key)
                yield key, rgb.numpy(), valid[0].numpy()

    def of_one(rgb: np.ndarray, valid: np.ndarray | None) -> Any:
        return captioner()(rgb, valid)

    def of_batch(pictures: Sequence[Picture]) -> list[Outcome]:
        return attempt(captioner(), pictures)

    added = caption_patches(
        patches(),
        of_one if by_rule else of_batch,
        captions_file(params),
        params.captions.captioner,
        params.captions.prompt_version,
        total=sum(len(keys) for _, keys in sources),
        progress=progress,
        share=share,
        batch=None if by_rule else params.vlm.batch,
        made_by=None if by_rule else _made_by(params),
    )
    if progress and share.rank == 0 and not by_rule:
        print(summary(params))
    return added


def _made_by(params: Params) -> Mapping[str, str]:
    """What rows must say, not to be made again."""
    from satjepa.captions.vlm import folder_revision

    asked = {"prompts": prompts_of(params).hash}
    folder = Path(local(params.captions.captioner))
    revision = folder_revision(folder) if folder.is_dir() else params.vlm.revision
    return asked if revision is None else asked | {"revision": revision}


def summary(params: Params) -> str:
    """How many captions a model's table has, and how many calls they took."""
    c = params.captions
    rows = rows_of(captions_file(params), c.captioner, c.prompt_version)
    counts = rows["calls"].value_counts()
    return (
        f"{c.captioner}: captions of {len(rows)} images, {counts.get('together', 0)} from one "
        f"answer with three sections, {counts.get('separate', 0)} from three answers"
    )


if __name__ == "__main__":
    caption_all(load_params())
