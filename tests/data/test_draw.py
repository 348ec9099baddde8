"""A region that cannot serve is never drawn; by name it is refused with the true reason."""

import numpy as np
import pytest
import xarray as xr

from satjepa.data.draw import MIN_VALID, make_split, serving_years, unfit_regions
from satjepa.data.pairs import PairDataset
from satjepa.data.splits import windows

YEARS = [2018, 2019, 2020]


def cube(
    region: str, years: list[int] = YEARS, size: int = 128, valid: object = True
) -> xr.Dataset:
    """A cube of what a split looks at; `valid` is broadcast to (years, size, size)."""
    mask = np.broadcast_to(np.asarray(valid, bool), (len(years), size, size)).copy()
    axes = {"year": years, "y": np.arange(size), "x": np.arange(size)}
    rgb = np.zeros((len(years), 3, size, size), np.uint8)
    variables = {"valid": (("year", "y", "x"), mask), "rgb": (("year", "band", "y", "x"), rgb)}
    return xr.Dataset(variables, axes, {"region": region, "preset": "mine"})


def by_year(*shares: float, size: int = 128) -> np.ndarray:
    """(years, size, size): in each year the first rows are valid, that share of them."""
    return np.stack([np.arange(size)[:, None] < share * size * np.ones(size) for share in shares])


UNFIT = {
    "small": (cube("small", size=60), "60x60 pixels, less than one patch of 64x64"),
    "gaps": (cube("gaps", [2016, 2018, 2020]), r"no two consecutive years among \[2016, 2018"),
    "single": (cube("single", [2020]), r"no two consecutive years among \[2020\]"),
    "clouded": (cube("clouded", valid=by_year(1, 0.2, 1)), "valid by half in two consecutive"),
    "empty": (cube("empty", valid=False), "valid by half in two consecutive years"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_region_that_cannot_serve_is_told_and_gives_no_sample(name):
    bad, reason = UNFIT[name]
    (found,) = unfit_regions([bad, cube("good")], 64).values()
    assert list(unfit_regions([cube("good"), bad], 64)) == [name]
    with pytest.raises(ValueError, match=reason):
        raise ValueError(found)
    with pytest.raises(ValueError, match="no sample"):
        PairDataset([bad], None, 64)


@pytest.mark.parametrize("kind", ["region", "year", "published"])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_in_no_part(kind, seed):
    good = [cube(name) for name in "ABCDEF"]
    everything = good + [bad for bad, _ in UNFIT.values()]
    split = make_split(everything, kind, seed, val=1, test=2, patch=64)
    entries = {entry.split("/")[0] for entry in split.train + split.val + split.test}
    assert entries == set("ABCDEF")
    for part in ("train", "test"):
        assert len(PairDataset(everything, split.part(part), 64)) > 0


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_it_is_refused_by_name_with_the_reason(name, part):
    cubes = [cube(letter) for letter in "ABCD"] + [UNFIT[name][0]]
    parts = {"train": ["A"], "val": ["B"], "test": ["C"]}
    parts[part] = [*parts[part], name]
    with pytest.raises(ValueError, match=f"'{name}' is named for {part} and.*{UNFIT[name][1]}"):
        make_split(cubes, patch=64, **parts)


def test_where_too_few_are_left_the_others_are_named():
    cubes = [cube("A"), cube("B"), UNFIT["small"][0], UNFIT["gaps"][0]]
    match = "2 regions are too few .*; 2 more cannot serve: gaps: no two.*; small: 60x60"
    with pytest.raises(ValueError, match=match):
        make_split(cubes, val=1, test=1, patch=64)
    for kind in ("year", "published"):
        with pytest.raises(ValueError, match=r"no region can serve: gaps: .*small"):
            make_split(cubes[2:], kind, patch=64)


def test_the_year_held_out_is_one_that_can_serve():
    half = cube("A", [2016, 2017, 2018, 2019, 2020], valid=by_year(1, 1, 1, 1, 0.1))
    split = make_split([half], "year", patch=64)
    assert (split.test, split.val, split.train) == (("A/2018",), ("A/2017",), ("A/2016",))


@pytest.mark.parametrize(("patch", "stride"), [(32, None), (32, 16), (64, 32), (48, None)])
def test_a_year_serves_where_a_patch_dataset_has_samples(patch, stride):
    valid = np.random.default_rng(3).random((4, 1, 1)) > np.random.default_rng(4).random((128, 128))
    some = cube("A", [2018, 2019, 2020, 2021], valid=valid)
    data = PairDataset([some], None, patch, stride)
    years = sorted({data.meta(i)["year"] for i in range(len(data))})
    assert serving_years(some, patch, stride)[0] == years and data.dropped > 0
    assert data.min_valid == MIN_VALID and windows((128, 128), patch, stride or patch)
