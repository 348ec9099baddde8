"""The caption stage: every image that a training, validation or test sample shows, captioned
once.

    python -m satjepa.pipeline.caption                       in one process, as notebook 02 does
    accelerate launch -m satjepa.pipeline.caption            on all GPUs of a machine
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from satjepa.assemble import captions_file, dataset, the_device
from satjepa.captions import rules
from satjepa.captions.table import Captioner, caption_patches
from satjepa.config import ConfigError, Params, load_params
from satjepa.contracts import Captions, PatchKey
from satjepa.data.pairs import PairDataset
from satjepa.data.share import Share


def all_images(params: Params) -> Iterator[tuple[PairDataset, list[PatchKey]]]:
    """The datasets of every part of every preset that have samples, each with the keys of the
    images it shows.
    """
    for preset, part in params.parts():
        data = dataset(params, part, preset, text=False)
        yield data, data.keys()


def captioner_of(params: Params) -> Captioner:
    """The captioner that `captions.captioner` names: the rules, or a vision-language model by
    folder or id.

    Raises ConfigError where `captions.prompt_version` is another one than its code writes.
    """
    name = params.captions.captioner
    if name == "rules":
        _require_version(params, rules.PROMPT_VERSION)
        return lambda rgb, valid: rules.caption(rgb, valid, "display")
    from satjepa.captions import vlm

    _require_version(params, vlm.PROMPT_VERSION)
    return vlm.VlmCaptioner.from_pretrained(name, device=str(the_device()))


def _require_version(params: Params, version: int) -> None:
    if (asked := params.captions.prompt_version) != version:
        raise ConfigError(
            "captions.prompt_version",
            str(asked),
            f"{version}, which the code of {params.captions.captioner} writes",
        )


def caption_all(params: Params, progress: bool = True) -> int:
    """Add to the captioner's table (`captions_file`) what it lacks; returns how many captions were
    added. The captioner is loaded where one is lacking.
    """
    share = Share.mine()
    sources = list(all_images(params))
    captioner = cache(lambda: captioner_of(params))

    def caption(rgb: np.ndarray, valid: np.ndarray | None) -> Captions:
        return captioner()(rgb, valid)

    def patches() -> Iterator[tuple[PatchKey, np.ndarray, np.ndarray]]:
        for data, keys in sources:
            for key in keys:
                rgb, valid = data.image(key)
                yield key, rgb.numpy(), valid[0].numpy()

    return caption_patches(
        patches(),
        caption,
        captions_file(params),
        params.captions.captioner,
        params.captions.prompt_version,
        total=sum(len(keys) for _, keys in sources),
        progress=progress,
        share=share,
    )


if __name__ == "__main__":
    caption_all(load_params())
