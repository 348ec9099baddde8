"""A split drawn from cubes: which of their regions can serve, and which part each of them gets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.scenes import year_pairs
from satjepa.data.splits import DEPTH, Split, entry_of, windows

if TYPE_CHECKING:
    import xarray as xr

MIN_VALID = 0.5  # share of a window that is valid in both years, or it is no sample


def serving_years(
    cube: xr.Dataset, patch: int | None = None, stride: int | None = None
) -> tuple[list[int], str]:
    """The years t of a cube that can be a sample with t+1, and, where there are none, why.

    patch: side in pixels; a window of it, on a grid of `stride` pixels (default: patch), must be
    valid by half or more in both years. None: every two consecutive years can serve.
    """
    years = cube["year"].values.tolist()
    pairs = year_pairs(years)
    if not pairs:
        return [], f"no two consecutive years among {years}"
    if patch is None:
        return [year for year, _ in pairs], ""
    height = cube.sizes["y"]
    width = cube.sizes["x"]
    if min(height, width) < patch:
        return [], f"{height}x{width} pixels, less than one patch of {patch}x{patch} (data.patch)"
    if "valid" not in cube:
        return [year for year, _ in pairs], ""
    share = _valid_share(cube["valid"].values, patch, stride or patch)  # (years, windows)
    enough = dict(zip(years, share >= MIN_VALID, strict=True))
    serving = [year for year, following in pairs if (enough[year] & enough[following]).any()]
    why = f"no patch of {patch}x{patch} pixels that is valid by half in two consecutive years"
    return serving, "" if serving else why


def _valid_share(valid: np.ndarray, patch: int, stride: int) -> np.ndarray:
    """Share of valid pixels (years, windows) of the windows of `patch` pixels, as `windows` lists
    them; valid (years, H, W) bool.
    """
    corners = windows(valid.shape[1:], patch, stride)
    shares = [valid[:, y : y + patch, x : x + patch].mean((1, 2)) for x, y in corners]
    return np.stack(shares, 1)


def unfit_regions(cubes: Iterable[xr.Dataset], patch: int | None = None) -> dict[str, str]:
    """The regions that give no sample to score, each with the reason."""
    reasons = {cube.attrs["region"]: serving_years(cube, patch)[1] for cube in cubes}
    return {region: reasons[region] for region in sorted(reasons) if reasons[region]}


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
    """A split of the regions in `cubes` (those of several presets count once) that can serve: with
    a pair of consecutive years and, where `patch` is given, a window of it valid by half in both
    (`serving_years`). `unfit_regions` says which are left out, and why.

    kind "region": `val` and `test` are names of regions, or how many to draw (in an order that
    depends on the seed and the name of each region only); `train` names the others, default all
    that is left.
    kind "year": of each region, the last pair of consecutive years is tested and, if there are
    three or more, the one before it validates.
    kind "published": windows of `patch` pixels that do not overlap, of all pairs of years, a random
    20 % of them tested and 10 % for validation. The last two kinds do not use `val`, `test` and
    `train`. Raises ValueError for unknown regions, for named ones that cannot serve, for too few,
    or a missing `patch`; LeakError for a region named twice.
    """
    if kind not in DEPTH or (kind == "published" and patch is None):
        raise ValueError(
            f"kind={kind!r}, patch={patch}: accepted are {', '.join(DEPTH)}; published wants a "
            "patch"
        )
    by_region = {cube.attrs["region"]: cube for cube in cubes}
    served = {name: serving_years(by_region[name], patch) for name in sorted(by_region)}
    unfit = {name: why for name, (_, why) in served.items() if why}
    starts = {name: years for name, (years, why) in served.items() if not why}
    if kind == "region":
        return Split(kind, seed, *_draw(list(starts), unfit, seed, val, test, train))
    if not starts:
        raise ValueError(f"no region can serve: {_reasons(unfit)}")
    if kind == "year":
        return Split(kind, seed, *_last_years(starts))
    size = {name: (by_region[name].sizes["y"], by_region[name].sizes["x"]) for name in starts}
    every = [
        entry_of(kind, name, t, x, y)
        for name in starts
        for t in starts[name]
        for x, y in windows(size[name], patch, patch)
    ]
    every = _shuffled(every, seed)
    tenth = round(0.1 * len(every))
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
    unfit: Mapping[str, str],
    seed: int,
    val: int | Sequence[str],
    test: int | Sequence[str],
    train: Sequence[str] | None,
) -> tuple[tuple[str, ...], ...]:
    """Regions of train, val and test: named ones as named, numbers drawn from what is left, test
    first. Those that are `unfit` are neither drawn nor accepted by name.
    """
    wanted = {"train": train, "val": val, "test": test}
    named = {part: list(names) for part, names in wanted.items() if isinstance(names, Sequence)}
    _refuse_names(named, regions, unfit)
    taken = {name for names in named.values() for name in names}
    free = [name for name in _shuffled(regions, seed) if name not in taken]
    drawn = {}
    for part in ("test", "val"):
        if part in named:
            drawn[part] = tuple(named[part])
            continue
        count = wanted[part]
        if len(free) < count:
            raise _too_few(regions, unfit, val, test)
        drawn[part] = tuple(free[:count])
        free = free[count:]
    rest = tuple(free) if train is None else tuple(train)
    if not rest:
        raise _too_few(regions, unfit, val, test)
    return rest, drawn["val"], drawn["test"]


def _refuse_names(
    named: Mapping[str, Sequence[str]], regions: Sequence[str], unfit: Mapping[str, str]
) -> None:
    """Raise ValueError for a name that is no region, or one that cannot serve."""
    for part, names in named.items():
        for name in names:
            if name in unfit:
                raise ValueError(
                    f"region {name!r} is named for {part} and cannot serve: {unfit[name]}; name "
                    "another one, or give it what it lacks"
                )
            if name not in regions:
                near = get_close_matches(name, [*regions, *unfit], 1)
                hint = f"; is it {near[0]!r}?" if near else ""
                raise ValueError(f"no region {name!r} in the cubes{hint}")


def _too_few(
    regions: Sequence[str], unfit: Mapping[str, str], val: object, test: object
) -> ValueError:
    others = f"; {len(unfit)} more cannot serve: {_reasons(unfit)}" if unfit else ""
    return ValueError(
        f"{len(regions)} regions are too few for val={val}, test={test} and at least one to "
        f"train on{others}"
    )


def _reasons(unfit: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in unfit.items())
