"""Do words steer? A forecast caption is edited in one quarter, and what the forecast shows there is
compared with the forecast without the edit, from the same noise.

A picture moves towards an edit if the cover that the edit names has a larger share of its quarter
than without the edit (`share`); it follows if the caption by rule of the picture says so
(`claimed`). Three things are measured by the same yardstick: the edit; no edit, but other noise;
and an edit of another quarter to another cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from satjepa.captions.cover import COVERS, cover_map
from satjepa.captions.grammar import QUARTERS, claims, edited
from satjepa.captions.rules import caption
from satjepa.models.led import led_by

if TYPE_CHECKING:
    from satjepa.captions.embeddings import Embed
    from satjepa.contracts import Batch
    from satjepa.models.joint import JointModel

# covers that an edit may name: those a quarter of a place is often full of
NAMED = ("forest", "water", "grass", "green crops", "yellow crops", "pale soil", "brown soil",
         "pasture", "buildings")  # fmt: skip


class Edit(NamedTuple):
    """A cover that is to lie in a quarter."""

    quarter: str
    cover: str


def draw_edits(text: str, count: int, rng: np.random.Generator) -> list[Edit]:
    """`count` different edits of a caption that ask for what it does not say."""
    said = claims(text)
    new = [Edit(q, c) for q in QUARTERS for c in NAMED if (q, c) not in said]
    return [new[i] for i in rng.choice(len(new), count, replace=False)]


def another(text: str, edit: Edit, rng: np.random.Generator) -> Edit:
    """An edit of another quarter of the caption to another cover than that of `edit`."""
    away = draw_edits(text, 1, rng)[0]
    while away.quarter == edit.quarter or away.cover == edit.cover:
        away = draw_edits(text, 1, rng)[0]
    return away


def futures(
    joint: JointModel, batch: Batch, texts: Sequence[str], embed: Embed, seed: int = 0,
    hide: Sequence[str | None] | None = None, member: int = 0,
) -> Tensor:  # fmt: skip
    """One place (a batch of B = 1) as each of n semantic captions of t+1 has it, from one and the
    same noise, that of a member: (n,3,H,W). hide: a quarter for each, whose tokens the forecast
    does without, None for none: there the words alone say what comes.
    """
    many = repeated(batch, len(texts))
    if hide is not None:
        many["hidden_quarters"] = torch.stack([_hidden(quarter) for quarter in hide])
    return led_by(joint, many, [texts], embed, seed, first=member)[0]


def repeated(batch: Batch, count: int) -> dict[str, Any]:
    """A batch of one place, `count` times."""
    many: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, dict):
            many[name] = {k: v.expand(count, *v.shape[1:]) for k, v in value.items()}
        else:
            many[name] = value * count if name == "meta" else value.expand(count, *value.shape[1:])
    return many


def _hidden(quarter: str | None) -> Tensor:
    return torch.tensor([name == quarter for name in QUARTERS])


def of_quarter(image: Tensor, quarter: str) -> Tensor:
    """The quarter of an image or map (...,H,W)."""
    half = image.shape[-2] // 2, image.shape[-1] // 2
    rows = slice(None, half[0]) if quarter.startswith("north") else slice(half[0], None)
    columns = slice(None, half[1]) if quarter.endswith("west") else slice(half[1], None)
    return image[..., rows, columns]


def covered(image: Tensor, edit: Edit) -> tuple[float, bool]:
    """Of an image (3,H,W): the share of the edit's quarter that has its cover, and whether the
    caption by rule says so.
    """
    pixels = image.numpy()
    everywhere = np.ones(pixels.shape[1:], bool)
    cover = torch.from_numpy(cover_map(pixels, everywhere))
    there = of_quarter(cover, edit.quarter) == COVERS.index(edit.cover)
    says = claims(caption(pixels, everywhere, "display").semantic)
    return there.double().mean().item(), tuple(edit) in says


def changed_elsewhere(one: Tensor, other: Tensor, quarter: str) -> float:
    """Mean absolute difference of two images (3,H,W) outside a quarter."""
    gap = (one - other).abs().double()
    inside = of_quarter(gap, quarter)
    return ((gap.sum() - inside.sum()) / (gap.numel() - inside.numel())).item()


def steer_place(
    joint: JointModel, batch: Batch, text: str, embed: Embed, rng: np.random.Generator,
    count: int = 5, seed: int = 0, hide: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Edits of the caption `text` of one place (a batch of B = 1), each with its controls: a row
    for each of `count` edits and each of "edit", "no edit", "random edit". hide: in all pictures of
    an edit, also the one without it, the tokens of its quarter are hidden.
    """
    edits = draw_edits(text, count, rng)
    others = [another(text, edit, rng) for edit in edits]
    quiet = [edit.quarter for edit in edits] if hide else None

    def drawn(texts: Sequence[str], member: int = 0) -> Tensor:
        return futures(joint, batch, texts, embed, seed, quiet, member)  # (count,3,H,W)

    as_it_is = [text] * count
    plain = drawn(as_it_is)
    made = {
        "edit": drawn([edited(text, *edit) for edit in edits]),
        "no edit": drawn(as_it_is, member=1),
        "random edit": drawn([edited(text, *edit) for edit in others]),
    }
    rows = []
    for number, edit in enumerate(edits):
        before, _ = covered(plain[number], edit)
        for case, images in made.items():
            share, claimed = covered(images[number], edit)
            elsewhere = changed_elsewhere(plain[number], images[number], edit.quarter)
            row = {"case": case, "before": before, "share": share, "claimed": claimed}
            rows.append(row | edit._asdict() | {"elsewhere": elsewhere})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Means over the rows of `steer_place`, by case; n, how many.

    moved: the share of edits after which the named cover has more of its quarter than before; one
    that stays counts half. gain: mean gain of its share of the quarter. claimed: the captions by
    rule that say what was asked for. elsewhere: mean absolute change of the rest of the place, in
    units of [0, 1].
    """
    frame = pd.DataFrame(rows)
    gain = frame["share"] - frame["before"]
    frame = frame.assign(moved=(gain > 0) + 0.5 * (gain == 0), gain=gain)
    names = ["moved", "gain", "claimed", "elsewhere"]
    return frame.groupby("case", sort=False)[names].mean().assign(n=frame["case"].value_counts())
