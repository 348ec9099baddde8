"""What one row of a table keeps of its batches, and how several processes put theirs together."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from satjepa.data.share import Share, interleave


@dataclass
class Tally:
    """What is kept of the batches for one row."""

    samples: int
    seconds: float = 0.0
    patches: list[pd.DataFrame] = field(default_factory=list)
    ranks: list[Tensor] = field(default_factory=list)  # histogram of each batch
    forecast: dict[str, list[Tensor]] = field(
        default_factory=dict
    )  # distance -> pooled features (B, D)
    truth: dict[str, list[Tensor]] = field(default_factory=dict)


def joined(tallies: dict[str, Tally], share: Share) -> dict[str, Tally]:
    """The tallies of all batches, in their order, from those of each process; in all of them."""
    if share.world == 1:
        return tallies
    each = share.gather([tallies])  # where there are few batches, the last processes have none

    def distances(parts: list[dict[str, list[Tensor]]]) -> dict[str, list[Tensor]]:
        features = {}
        for name in parts[0]:
            every = interleave([part[name] for part in parts])
            features[name] = [batch.cpu() for batch in every]
        return features

    joined = {}
    for title in each[0]:
        parts = [own[title] for own in each if title in own]
        joined[title] = Tally(
            parts[0].samples,
            sum(part.seconds for part in parts),
            interleave([part.patches for part in parts]),
            interleave([part.ranks for part in parts]),
            distances([part.forecast for part in parts]),
            distances([part.truth for part in parts]),
        )
    return joined
