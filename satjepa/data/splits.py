"""Which samples train, which validate, which test: one JSON file with a hash, and a guard against
leaks.

region      whole regions held out (default)
year        the last pair of years of every region held out, the one before it for validation
published   random patches, as in the published code, for comparison only. LEAKY: the same places,
and often the
            very images that are to be forecast, are trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.config import digest
from satjepa.data.scenes import year_pairs

if TYPE_CHECKING:
    import xarray as xr

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
        return _entry(self.kind, region, year, x, y) in self.entries


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
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(
            json.dumps({**self._content(), "sha256": self.sha256}, indent=1) + "\n",
            encoding="utf-8",
        )
        os.replace(part, path)

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
        region (region and year
        splits: training windows cover all of it) or the window of `patch` pixels (published split,
        where an overlap counts). Whoever trained with another split than this one must be asked
        with that one.
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
        return {
            region: [(x, y, year) for (x, y), year in places.items()]
            for region, places in last.items()
        }


def _entry(kind: str, region: str, year: int, x: int, y: int) -> str:
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


def make_split(
    cubes: Iterable[xr.Dataset],
    kind: str = "region",
    seed: int = 0,
    *,
    val: int | Sequence[str] = 4,
    test: int | Sequence[str] = 8,
    train: Sequence[str] | None = None,
    patch: int | None = None,
) -> Split:
    """A split of the regions in `cubes` (those of several presets count once).

    kind "region": `val` and `test` are names of regions, or how many to draw (in an order that
    depends on the seed and the name of each region only); `train` names the others, default all
    that is left.
    kind "year": of each region, the last pair of consecutive years is tested and, if there are
    three or more, the one before it validates.
    kind "published": windows of `patch` pixels that do not overlap, of all pairs of years, a random
    20 % of them tested and 10 % for validation. The last two kinds do not use `val`, `test` and
    `train`. Raises ValueError for unknown regions, too few of them, or a missing `patch`; LeakError
    for a region named twice.
    """
    if kind not in DEPTH or (kind == "published" and patch is None):
        raise ValueError(
            f"kind={kind!r}, patch={patch}: accepted are {', '.join(DEPTH)}; published wants a "
            "patch"
        )
    by_region = {cube.attrs["region"]: cube for cube in cubes}
    starts = {
        name: [t for t, _ in year_pairs(by_region[name]["year"].values.tolist())]
        for name in sorted(by_region)
    }
    if kind == "region":
        return Split(kind, seed, *_draw(list(starts), seed, val, test, train))
    if kind == "year":
        return Split(kind, seed, *_last_years(starts))
    size = {name: (cube.sizes["y"], cube.sizes["x"]) for name, cube in by_region.items()}
    places = {name: windows(size[name], patch, patch) for name in starts}
    every = [
        _entry(kind, name, t, x, y)
        for name in starts
        for t in starts[name]
        for x, y in places[name]
    ]
    every, tenth = _shuffled(every, seed), round(0.1 * len(every))
    train = every[3 * tenth :]
    val = every[2 * tenth : 3 * tenth]
    test = every[: 2 * tenth]
    return Split(kind, seed, tuple(train), tuple(val), tuple(test), patch)


def _last_years(starts: dict[str, list[int]]) -> tuple[tuple[str, ...], ...]:
    """Train, val and test entries from the first years of each region's pairs: the last tested, the
    second last val.
    """
    train = []
    val = []
    test = []
    for region, years in starts.items():
        entries = [f"{region}/{year}" for year in years]
        test += entries[-1:]
        val += entries[-2:-1] if len(entries) > 2 else []
        train += entries[:-2] if len(entries) > 2 else entries[:-1]
    return tuple(train), tuple(val), tuple(test)


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def _draw(
    regions: list[str],
    seed: int,
    val: int | Sequence[str],
    test: int | Sequence[str],
    train: Sequence[str] | None,
) -> tuple[tuple[str, ...], ...]:
    """Regions of train, val and test: named ones as named, numbers drawn from what is left, test
    first.
    """
    named = {
        name for part in (val, test, train or ()) if not isinstance(part, int) for name in part
    }
    if unknown := sorted(named - set(regions)):
        near = get_close_matches(unknown[0], regions, 1)
        raise ValueError(
            f"no region {unknown[0]!r} in the cubes{f'; is it {near[0]!r}?' if near else ''}"
        )
    free = [name for name in _shuffled(regions, seed) if name not in named]
    drawn = {}
    for name, wanted in (("test", test), ("val", val)):
        if isinstance(wanted, int):
            drawn[name] = tuple(free[:wanted])
            free = free[wanted:]
        else:
            drawn[name] = tuple(wanted)
    rest = tuple(free) if train is None else tuple(train)
    if not rest or any(
        isinstance(n, int) and len(drawn[part]) < n for part, n in (("val", val), ("test", test))
    ):
        raise ValueError(
            f"{len(regions)} regions are too few for val={val}, test={test} and at least one to "
            "train on"
        )
    return rest, drawn["val"], drawn["test"]
