"""Captions as tensors: of another length, or others in their place."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from satjepa.contracts import CAPTION_KINDS, SEMANTIC
from satjepa.models.caption_forecaster import Caption


def fitted(caption: Caption, length: int) -> Caption:
    """A caption (..., L) of another length: cut, or padded with what does not exist. Any L goes in,
    so that it does not matter how far a batch is padded.
    """
    have = caption["mask"].shape[-1]
    if have == length:
        return caption
    more = max(0, length - have)
    hidden = F.pad(caption["hidden"][..., :length, :], (0, 0, 0, more))
    mask = F.pad(caption["mask"][..., :length], (0, more))
    return caption | {"hidden": hidden, "mask": mask}


def semantic_of(chosen: Tensor) -> Tensor:
    """Which captions are meant by the semantic ones of the samples `chosen` (B,) bool: (B,3)."""
    where = chosen.new_zeros(len(chosen), len(CAPTION_KINDS))
    where[:, SEMANTIC] = chosen
    return where


def substituted(
    captions: Caption, others: Caption, where: Tensor, lengths: Sequence[int]
) -> Caption:
    """The captions (B,3,...) with `others` (B,3,...) where (B,3) says so; `lengths` words of each
    kind are read.
    """
    longest = max(lengths)
    others = fitted(others, longest)
    # without a tensor made of Python's numbers: a CUDA graph captures no copy from the host
    places = torch.arange(longest, device=where.device)  # (L,)
    read = torch.stack([places < length for length in lengths])  # (3,L)
    others = others | {"mask": others["mask"] & read}
    return {
        name: torch.where(where.view(*where.shape, *[1] * (own.ndim - 2)), others[name], own)
        for name, own in captions.items()
    }
