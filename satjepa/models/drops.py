"""What samples are trained without, and whose captions are the true ones."""

from typing import NamedTuple

import torch
from torch import Tensor


class Drops(NamedTuple):
    """What samples are trained (or guided) without, and whose caption is the true one.

    text, tokens: (B,) bool, without their captions, without their tokens. truth: (B,) bool, given
    the true semantic caption of t+1 in place of the forecast one. quarters: (B,4) bool, without the
    tokens of that quarter of the patch (northwest, northeast, southwest, southeast): there the
    words alone say what comes.
    """

    text: Tensor
    tokens: Tensor
    truth: Tensor
    quarters: Tensor

    @classmethod
    def all(cls, like: Tensor, value: bool) -> "Drops":
        """Every sample of a batch (B,...) dropped, or none; captions as they are forecast."""
        mask = torch.full((len(like),), value, device=like.device)
        none = torch.zeros(len(like), 4, dtype=torch.bool, device=like.device)
        return cls(mask, mask, none[:, 0], none)


class Chances(NamedTuple):
    """How often a sample is trained without its captions, without its tokens, with the true caption
    of t+1, and without the tokens of one quarter.
    """

    text: float
    tokens: float
    truth: float = 0.0
    quarter: float = 0.0


def sample_drops(batch: int, chances: Chances, generator: torch.Generator | None = None) -> Drops:
    """Draw the drops of a training batch; on the CPU.

    One draw decides captions and tokens, so that half of the rarer drop happens together with the
    other: the unconditional case of classifier-free guidance is then trained (independent draws of
    0.1 would give it one sample in a hundred).
    """
    text, tokens, truth, quarter = chances
    u = torch.rand(batch, generator=generator)
    start = text - min(text, tokens) / 2
    true = torch.rand(batch, generator=generator) < truth
    hides = torch.rand(batch, generator=generator) < quarter
    which = torch.randint(4, (batch,), generator=generator)
    return Drops(
        text=u < text,
        tokens=(u >= start) & (u < start + tokens),
        truth=true,
        quarters=hides[:, None] & (which[:, None] == torch.arange(4)),
    )
