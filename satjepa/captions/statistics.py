"""What captions carry: do they differ between places, and do they follow the change of the land?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satjepa.contracts import CAPTION_KINDS

if TYPE_CHECKING:
    import pandas as pd

PLACE = ["preset", "region", "x", "y"]


def pairs(captions: pd.DataFrame) -> pd.DataFrame:
    """Captions of successive years side by side: one row a (place, year t), columns `<kind>_t` and
    `<kind>_tp1`.
    """
    later = captions.assign(year=captions["year"] - 1)
    return captions.merge(later, on=[*PLACE, "year"], suffixes=("_t", "_tp1"))


def words_kept(before: str, after: str) -> float:
    """Share of the different words of `before` that stand in `after` too; 1 where `before` is
    empty.
    """
    words = set(before.lower().split())
    return len(words & set(after.lower().split())) / len(words) if words else 1.0


def statistics(captions: pd.DataFrame) -> pd.DataFrame:
    """For each kind of caption: mean words, share of distinct texts, share of places whose text
    changes in a year, and the words that a year keeps (what caption persistence scores).
    """
    import pandas as pd

    both = pairs(captions)
    rows = {}
    for kind in CAPTION_KINDS:
        before = both[f"{kind}_t"]
        after = both[f"{kind}_tp1"]
        rows[kind] = {
            "words": captions[kind].str.split().str.len().mean(),
            "distinct": captions[kind].nunique() / len(captions),
            "changes": (before != after).mean(),
            "words kept": sum(map(words_kept, before, after)) / len(both),
        }
    return pd.DataFrame(rows).T.round(3)
