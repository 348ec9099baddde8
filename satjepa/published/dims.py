"""The dimensions of a published checkpoint, read off the shapes of its tensors."""

from __future__ import annotations

import re
from math import isqrt
from statistics import mode
from typing import NamedTuple

from satjepa.published.names import LORA, Tensors
from satjepa.training.checkpoint import CheckpointError

Sections = dict[str, Tensors]

COARSE_PATCH = 4
COARSE = "coarse_pos_embed"  # the adapter that has it is the coarse-RGB one of the main branch


class PublishedError(CheckpointError):
    """A file is not the published checkpoint, or not whole.

    The message names the first thing that differs.
    """


class Dims(NamedTuple):
    """What the shapes of a file tell of its architecture."""

    patch: int
    grid: int
    token_dim: int
    depth: int
    predictor_dim: int
    predictor_depth: int
    joint_dim: int
    pooled_dim: int
    adapter_dim: int
    coarse: int  # side of the shrunk image; 0: the caption adapter
    forecaster_dim: int
    forecaster_layers: int  # 0 without captions
    lora_rank: int


def read_dims(sections: Sections) -> Dims:
    """Read the dimensions off a file's tensors, each off several where there are several.

    So one wrong shape is outvoted, and then named by `satjepa.published.layout.check`.
    PublishedError names a section without any tensor that tells.
    """
    vit = {}  # the tensors of both encoders, which are alike
    for part in ("encoder", "target_encoder"):
        for name, tensor in sections[part].items():
            vit[f"{part}.{name}"] = tensor
    predictor = sections["predictor"]
    adapter = sections["cond_adapter"]
    forecaster = sections.get("caption_forecaster", {})
    lora = {}  # with the rank as first axis
    for name, tensor in sections[LORA].items():
        turned = "lora_B" in name and tensor.ndim == 2
        lora[name] = tensor.T if turned else tensor
    coarse = 0
    if COARSE in adapter:
        coarse = COARSE_PATCH * isqrt(_size("cond_adapter", adapter, COARSE, 1))
    # Names of tensors that have the size in question as their first axis.
    norm = r".*norm\d?\.(weight|bias)"
    layer = r"cross_attn_layers\.(\d+)\..*"
    joint = r"temporal_attn\.(norm_q|norm_kv|post_proj\.1)\.(weight|bias)"
    return Dims(
        patch=_size("encoder", vit, r".*patch_embed\.proj\.weight", -1),
        grid=isqrt(_size("encoder", vit | predictor, ".*pos_embed", 1)),
        token_dim=_size("encoder", vit, norm),
        depth=_count("encoder", vit, r"\w+\.blocks\.(\d+)\..*"),
        predictor_dim=_size("predictor", predictor, norm),
        predictor_depth=_count("predictor", predictor, r"predictor_blocks\.(\d+)\..*"),
        joint_dim=_size("cond_adapter", adapter, joint),
        pooled_dim=_size("cond_adapter", adapter, r"(ijepa_)?pool_proj\.2\.(weight|bias)"),
        adapter_dim=_size("cond_adapter", adapter, r"(ijepa_)?token_proj\.[0134]\.(weight|bias)"),
        coarse=coarse,
        forecaster_dim=_size("caption_forecaster", forecaster, norm) if forecaster else 0,
        forecaster_layers=_count("caption_forecaster", forecaster, layer) if forecaster else 0,
        lora_rank=_size(LORA, lora, r".*lora_[AB]\..*"),
    )


def _size(section: str, tensors: Tensors, pattern: str, axis: int = 0) -> int:
    """The most frequent size along an axis of the tensors whose name has a pattern."""
    sizes = []
    for name, tensor in tensors.items():
        if re.fullmatch(pattern, name) and tensor.ndim > max(axis, 0):
            sizes.append(tensor.shape[axis])
    if not sizes:
        raise PublishedError(f"{section} has no tensor `{pattern}`")
    return mode(sizes)


def _count(section: str, tensors: Tensors, pattern: str) -> int:
    """How many different numbers stand in the names that have a pattern.

    Not the highest, which a file can invent.
    """
    matches = [re.fullmatch(pattern, name) for name in tensors]
    numbers = {match[1] for match in matches if match}
    if not numbers:
        raise PublishedError(f"{section} has no tensor `{pattern}`")
    return len(numbers)
