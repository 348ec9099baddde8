"""Which samples train, which validate, which test: one JSON file with a hash, and a guard.

    region      whole regions held out (default)
    year        the last pair of years of every region held out, the one before it for validation
    published   random patches, as in the published code, for comparison only. LEAKY: the same
                places, and often the very images that are to be forecast, are trained on.

`satjepa.data.draw` makes one from cubes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satjepa.config import digest
from satjepa.paths import write_text

PARTS = ("train", "val", "test")
FOREVER = 9999  # last year seen of a place that is trained on whole
DEPTH = {
    "region": 1,
    "year": 2,
    "published": 4,
}  # fields of an entry: Region, Region/year, Region/year/x/y


class LeakError(ValueError):
    """A sample that is to be scored, or its later state, was seen in training."""


class UnknownSplit:
    """Stands for the split of a checkpoint that does not say, or not here, what it was trained on:
    no sample passes.
    """

    def assert_unseen(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Raise LeakError."""
        raise LeakError(
            "it is not known here what this checkpoint was trained on (an imported one does not "
            "say): it can forecast,"
            " but be scored on nothing, for it may have seen the answers. Whoever knows its split "
            "sets"
            " model.trained_on to it"
        )


@dataclass(frozen=True)
class SplitPart:
    """One part of a split: `entries` as in the split file, `patch` in pixels for the published
    kind.

    `split`: sha256 of the split that it is a part of, "" where it is of none.
    """

    name: str
    kind: str
    entries: frozenset[str]
    patch: int | None = None
    split: str = ""

    def allows(self, region: str, year: int, x: int, y: int) -> bool:
        """Whether the sample from `year` to the next one, at pixel offset (x, y), belongs to this
        part.
        """
        return entry_of(self.kind, region, year, x, y) in self.entries


@dataclass(frozen=True)
class Split:
    """A split; entries are regions, "Region/year" or "Region/year/x/y" (year: the earlier one of
    the pair).

    `patch` (pixels) is set for the published kind only. Raises ValueError for an entry that does
    not fit the kind and LeakError for one that stands in two parts.
    """

    kind: str
    seed: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    patch: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in DEPTH:
            raise ValueError(f"split kind {self.kind!r}; accepted: {', '.join(DEPTH)}")
        owner: dict[str, str] = {}
        for name in PARTS:
            for entry in getattr(self, name):
                if entry.count("/") + 1 != DEPTH[self.kind]:
                    raise ValueError(f"{entry!r} is no entry of a split of kind {self.kind}")
                if entry in owner:
                    raise LeakError(f"{entry} stands in {owner[entry]} and in {name}")
                owner[entry] = name

    @property
    def leaky(self) -> bool:
        """Whether scores on this split overstate: true for the published kind."""
        return self.kind == "published"

    @property
    def sha256(self) -> str:
        """Hex digest of the content; goes into checkpoints and tables."""
        return digest(self._content())

    def _content(self) -> dict[str, Any]:
        parts = {name: sorted(getattr(self, name)) for name in PARTS}
        return {"kind": self.kind, "seed": self.seed, "patch": self.patch, **parts}

    def save(self, path: str | Path) -> None:
        """Write the split file, atomically."""
        content = self._content() | {"sha256": self.sha256}
        write_text(path, json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a split file; ValueError if its content does not match the hash in it."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        stated = content.pop("sha256")
        split = cls(**content | {name: tuple(content[name]) for name in PARTS})
        if split.sha256 != stated:
            fix = "make a split with other parts with make_split(..., val=[...], test=[...])"
            raise ValueError(
                f"{path}: sha256 {split.sha256[:12]} instead of {stated[:12]}: edited by hand? "
                f"{fix}"
            )
        return split

    def part(self, name: str) -> SplitPart:
        """The part "train", "val" or "test", for a PairDataset."""
        return SplitPart(name, self.kind, frozenset(getattr(self, name)), self.patch, self.sha256)

    def assert_unseen(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """Raise LeakError if training saw the place of any sample in the sample's target year or
        later.

        `samples`: mappings with region, year (of t), x, y, as in batch["meta"]. A place is the
        region (region and year splits: training windows cover all of it) or the window of `patch`
        pixels (published split, where an overlap counts). Whoever trained with another split than
        this one must be asked with that one.
        """
        last = self._last_training_year()
        for sample in samples:
            region = sample["region"]
            target = sample["year"] + 1
            x = sample["x"]
            y = sample["y"]
            for left, top, seen in last.get(region, ()):
                apart = self.patch is not None and max(abs(left - x), abs(top - y)) >= self.patch
                if seen >= target and not apart:
                    when = "every year" if seen == FOREVER else str(seen)
                    label = f"split of kind {self.kind}" + (", leaky" if self.leaky else "")
                    raise LeakError(
                        f"{region} {target - 1} to {target}, x={x} y={y}: training saw {when} of "
                        "this place, so a score"
                        f" on it is no forecast ({label}); take a sample of another part, or a "
                        "split of kind region"
                    )

    def _last_training_year(self) -> dict[str, list[tuple[int, int, int]]]:
        """Region -> (x, y, last year seen there) of the training part; x = y = 0 where the place is
        the region.
        """
        last: dict[str, dict[tuple[int, int], int]] = {}
        for entry in self.train:
            region, *rest = entry.split("/")
            year = int(rest[0]) + 1 if rest else FOREVER
            place = (int(rest[1]), int(rest[2])) if len(rest) == 3 else (0, 0)
            places = last.setdefault(region, {})
            places[place] = max(places.get(place, 0), year)
        listed = {}
        for region, places in last.items():
            listed[region] = [(x, y, year) for (x, y), year in places.items()]
        return listed


def entry_of(kind: str, region: str, year: int, x: int, y: int) -> str:
    """The entry of a split of `kind` that a sample belongs to, if any does."""
    return "/".join(str(field) for field in (region, year, x, y)[: DEPTH[kind]])


def windows(shape: tuple[int, int], patch: int, stride: int) -> list[tuple[int, int]]:
    """Offsets (x, y) of all whole patches of a raster of `shape` (H, W), at multiples of `stride`,
    row by row.

    What is left over at the right and the lower edge belongs to no window. A raster smaller than a
    patch has none.
    """
    height, width = shape
    return [
        (x, y)
        for y in range(0, height - patch + 1, stride)
        for x in range(0, width - patch + 1, stride)
    ]
