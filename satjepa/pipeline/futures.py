"""One place, several futures: edits of a caption, and what the forecasts that they lead show.

What the notebook on words needs beside `satjepa.evaluation.steering`, on one place (a batch of
B = 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from torch import Tensor

from satjepa.captions.grammar import claims, edited, parsed
from satjepa.evaluation.led import overlap, seen
from satjepa.evaluation.steering import Edit, covered

FIVE = (
    Edit("northeast", "buildings"),
    Edit("northwest", "water"),
    Edit("southwest", "forest"),
    Edit("southeast", "yellow crops"),
    Edit("southwest", "brown soil"),
)


def told(text: str, edits: Sequence[Edit] = FIVE) -> dict[str, str]:
    """The caption `text` after each of some edits, by the words for it ("buildings northeast");
    those that change nothing are left out. ValueError for a caption that is not by rule.
    """
    texts = {f"{edit.cover} {edit.quarter}": edited(text, *edit) for edit in edits}
    return {name: new for name, new in texts.items() if claims(new) != claims(text)}


def shown(
    plain: Tensor, images: Mapping[str, Tensor], edits: Sequence[Edit] = FIVE
) -> pd.DataFrame:
    """What forecasts (3,H,W) show of what they were asked for: a row for each of `images`, named as
    by `told`; the share of the quarter that has the cover in the forecast `plain` without the edit,
    and after it, and what the caption by rule of the forecast says of the quarter.
    """
    asked = {f"{edit.cover} {edit.quarter}": edit for edit in edits}
    rows = {}
    for name, image in images.items():
        edit = asked[name]
        said = parsed(seen(image[None, None])[0][0])
        rows[name] = {
            "before": round(covered(plain, edit)[0], 3),
            "after": round(covered(image, edit)[0], 3),
            "the caption by rule says": " and ".join(said.quarters[edit.quarter]) or "nothing",
        }
    return pd.DataFrame(rows).T


def agreeing(members: Tensor, sentences: Sequence[str]) -> pd.DataFrame:
    """Members (S,3,H,W) of one place beside the sentences that led them: in how much of what it
    claims (quarter and cover) the caption by rule of each agrees with each sentence. Row: the
    picture; column: the sentence.
    """
    pictures = [texts[0] for texts in seen(members[:, None])]
    rows = {}
    for number, picture in enumerate(pictures, start=1):
        both = [overlap(claims(picture), claims(sentence)) for sentence in sentences]
        rows[f"picture {number}"] = dict(enumerate(both, start=1))
    return pd.DataFrame(rows).T.add_prefix("sentence ")
