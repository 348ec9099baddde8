"""What the trained baselines share: a batch as a clip of years, a masked loss, one forecast."""

from typing import Any

import torch
from torch import Tensor, nn

from satjepa.baselines.persistence import repeated


def clip(batch: dict[str, Any], history: int) -> tuple[Tensor, Tensor]:
    """Years t - history .. t, oldest first: frames, and which of their pixels are known.

    Returns (B,1+history,3,H,W) in [0, 1] and (B,1+history,1,H,W) bool.

    A batch says of an earlier year only whether it is there, not which of its pixels are valid; but
    invalid ones are black, so a black pixel of an earlier year counts as unknown. ValueError if the
    batch holds fewer earlier years.
    """
    available = batch["history"].shape[1]
    if available < history:
        raise ValueError(
            f"this model looks {history} years back, the batch {available}: data.history"
        )
    # A batch counts back from t-1; a clip runs forward.
    earlier = batch["history"][:, :history].flip(1)  # (B,history,3,H,W)
    exists = batch["history_valid"][:, :history].flip(1)  # (B,history)
    bright = (earlier > 0).any(2, keepdim=True)  # (B,history,1,H,W)
    known = exists[..., None, None, None] & bright
    frames = torch.cat([earlier, batch["rgb_t"][:, None]], 1)
    return frames, torch.cat([known, batch["valid_t"][:, None]], 1)


def scored(batch: dict[str, Any]) -> Tensor:
    """The pixels that losses and metrics look at, valid in both years: (B,1,H,W) bool."""
    return batch["valid_t"] & batch["valid_tp1"]


def masked_mse(image: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean square error over all bands of (...,C,H,W) in the pixels of `known` (...,1,H,W).

    0 where no pixel is known.
    """
    squared = (image - target).square() * known
    values = known.sum() * image.shape[-3]  # pixels times bands
    return squared.sum() / values.clamp_min(1)


@torch.no_grad()
def deterministic(model: nn.Module, batch: dict[str, Any], samples: int) -> Tensor:
    """`forecast` of a model with `predict(batch) -> (B,3,H,W)`, which has one answer.

    In eval mode, clamped, `samples` times the same: (samples,B,3,H,W) on the CPU.
    """
    device = next(model.parameters()).device
    was_training = model.training
    tensors = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
    model.eval()
    image = model.predict(tensors)
    model.train(was_training)
    return repeated(image, samples)
