"""The caption stage: every image that a training, validation or test sample shows, captioned
once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from satjepa.assemble import dataset
from satjepa.captions.rules import caption
from satjepa.captions.table import Captioner, caption_patches
from satjepa.config import Params
from satjepa.contracts import PatchKey
from satjepa.data.pairs import PairDataset
from satjepa.paths import root


def all_images(params: Params) -> Iterator[tuple[PairDataset, list[PatchKey]]]:
    """The datasets of every part of every preset that have samples, each with the keys of the
    images it shows.
    """
    for preset in params.data.presets:
        for part in ("train", "val", "test") if preset == params.data.presets[0] else ("test",):
            data = dataset(params, part, preset, text=False)
            yield data, [PatchKey(*key) for key in sorted(data.keys())]


def captioner_of(params: Params) -> Captioner:
    """The captioner that `captions.captioner` names: the rules, or a vision-language model by
    folder or id.
    """
    if params.captions.captioner == "rules":
        return lambda rgb, valid: caption(rgb, valid, "display")
    from satjepa.captions.vlm import VlmCaptioner

    return VlmCaptioner.from_pretrained(params.captions.captioner)


def caption_all(params: Params, progress: bool = True) -> int:
    """Add to `artifacts/captions.parquet` what it lacks; returns how many captions were added."""
    sources = list(all_images(params))
    captioner = captioner_of(params)

    def patches() -> Iterator[tuple[PatchKey, np.ndarray, np.ndarray]]:
        for data, keys in sources:
            for key in keys:
                rgb, valid = data.image(key)
                yield key, rgb.numpy(), valid[0].numpy()

    return caption_patches(
        patches(),
        captioner,
        root() / "artifacts/captions.parquet",
        params.captions.captioner,
        params.captions.prompt_version,
        total=sum(len(keys) for _, keys in sources),
        progress=progress,
    )
