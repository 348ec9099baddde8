"""What the trained baselines share: the years of a batch as a clip, a mean square over known
pixels, one forecast.
"""

from typing import Any

import torch
from torch import Tensor, nn

from satjepa.baselines.persistence import repeated


def clip(batch: dict[str, Any], history: int) -> tuple[Tensor, Tensor]:
    """Years t - history .. t, oldest first: frames (B,1+history,3,H,W), and which pixels are known
    (B,1+history,1,H,W).

    A batch says of an earlier year only whether it is there, not which of its pixels are valid; but
    invalid ones are black, so a black pixel of an earlier year counts as unknown. ValueError if the
    batch holds fewer earlier years.
    """
    if batch["history"].shape[1] < history:
        raise ValueError(
            f"this model looks {history} years back, the batch {batch['history'].shape[1]}: "
            "data.history"
        )
    earlier = batch["history"][:, :history].flip(1)
    there = batch["history_valid"][:, :history].flip(1)
    known = there[..., None, None, None] & (earlier > 0).any(2, keepdim=True)  # (B,history,1,H,W)
    frames = torch.cat([earlier, batch["rgb_t"][:, None]], 1)
    return frames, torch.cat([known, batch["valid_t"][:, None]], 1)


def scored(batch: dict[str, Any]) -> Tensor:
    """The pixels that losses and metrics look at, valid in both years: (B,1,H,W) bool."""
    return batch["valid_t"] & batch["valid_tp1"]


def masked_mse(image: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean square error over all bands of (...,C,H,W) in the pixels of `known` (...,1,H,W); 0 where
    there are none.
    """
    squared = (image - target).square() * known
    return squared.sum() / (known.sum() * image.shape[-3]).clamp_min(1)


@torch.no_grad()
def deterministic(model: nn.Module, batch: dict[str, Any], samples: int) -> Tensor:
    """`forecast` of a model with `predict(batch) -> (B,3,H,W)`: in eval mode, clamped, `samples`
    times the same.
    """
    device = next(model.parameters()).device
    training = model.training
    there = {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
    model.eval()
    image = model.predict(there)
    model.train(training)
    return repeated(image, samples)
