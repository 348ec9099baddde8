"""The semantic caption by rule as a grammar: read, written and edited.

    Forest with farmland. Northwest forest and grass, northeast water, southwest pasture, southeast
    forest. Change: clearing northwest.

`satjepa.captions.rules` writes it; here a text is taken apart again, so that it can be said whether
one that was written by a model is of that form, what it claims, and what it says after an edit.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from satjepa.captions.cover import COVERS
from satjepa.captions.rules import GROUPS, SPOTS

QUARTERS = ("northwest", "northeast", "southwest", "southeast")
NOTHING = "no data"  # said of a quarter without a cover, and of an image without a pixel
STILL = "No sign of change."
_COVER = f"(?:{'|'.join(COVERS)})"
_GROUP = f"(?:{'|'.join(GROUPS)})"
_SPOT = f"(?:{'|'.join(spot for line in SPOTS for spot in line)})"
_SIGN = f"{_COVER} {_SPOT}"
_QUARTERS = ", ".join(rf"{name} ({_COVER}(?: and {_COVER})?|{NOTHING})" for name in QUARTERS)
_FORM = re.compile(
    rf"({_GROUP})(?: with ({_GROUP}(?: and {_GROUP})*))?\. "
    rf"{_QUARTERS}\. "
    rf"(?:no sign of change|change: ({_SIGN}(?:, {_SIGN})*))\."
)

Claim = tuple[str, str]  # a quarter, and a cover that is said to lie in it


class Said(NamedTuple):
    """What a semantic caption says.

    groups: what the place is, the main one first. quarters: the covers of each of `QUARTERS`, at
    most two, none where it has no data. signs: of change, each a cover and where it lies.
    """

    groups: tuple[str, ...]
    quarters: dict[str, tuple[str, ...]]
    signs: tuple[str, ...]

    def text(self) -> str:
        """The caption that says it, as `satjepa.captions.rules` would write it."""
        if not self.groups:
            return f"{NOTHING.capitalize()}."
        main, *others = self.groups
        place = f"{main} with {' and '.join(others)}" if others else main
        parts = [f"{name} {' and '.join(c) or NOTHING}" for name, c in self.quarters.items()]
        change = f"Change: {', '.join(self.signs)}." if self.signs else STILL
        return f"{place.capitalize()}. {', '.join(parts).capitalize()}. {change}"


def parsed(text: str) -> Said | None:
    """What a caption says; None where it is not of the form that the rules write."""
    if text == f"{NOTHING.capitalize()}.":
        return Said((), {}, ())
    found = _FORM.fullmatch(text.lower())
    if found is None:
        return None
    main, others, *covers, signs = found.groups()
    groups = (main, *(others.split(" and ") if others else ()))
    quarters = {}
    for name, words in zip(QUARTERS, covers, strict=True):
        quarters[name] = () if words == NOTHING else tuple(words.split(" and "))
    said = Said(groups, quarters, tuple(signs.split(", ")) if signs else ())
    repeats = len(set(groups)) < len(groups) or any(len(set(c)) < len(c) for c in quarters.values())
    # letters are part of the form, too: what the rules would not write in this way is refused
    return said if said.text() == text and not repeats else None


def claims(text: str) -> frozenset[Claim]:
    """(quarter, cover) of all that a caption says of quarters; none for one of another form."""
    said = parsed(text)
    if said is None:
        return frozenset()
    return frozenset((name, cover) for name, covers in said.quarters.items() for cover in covers)


def share_parsed(texts: list[str]) -> float:
    """The share of some captions that have the form of those by rule; NaN of none."""
    return sum(parsed(text) is not None for text in texts) / len(texts) if texts else float("nan")


def edited(caption: str, quarter: str, cover: str) -> str:
    """The caption with `cover`, alone, in a quarter of `QUARTERS`, and with what that makes of the
    place: buildings make a town of a part of it. All else stays.

    ValueError for a caption of another form than those by rule, for another quarter, and for a
    cover that there is not.
    """
    said = parsed(caption)
    if said is None or not said.groups:
        raise ValueError(f"not a semantic caption by rule: {caption!r}")
    if quarter not in QUARTERS:
        raise ValueError(f"quarter {quarter!r}: there are {', '.join(QUARTERS)}")
    if cover not in COVERS:
        raise ValueError(f"cover {cover!r}: there are {', '.join(COVERS)}")
    group = [name for name, kinds in GROUPS.items() if COVERS.index(cover) in kinds]
    new = [name for name in group if name not in said.groups]
    quarters = said.quarters | {quarter: (cover,)}
    return Said((*said.groups, *new), quarters, said.signs).text()
