"""A split is data with a hash; nothing stands in two parts, and what was trained on is not scored
(promise P9).
"""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import xarray as xr

from satjepa.data.draw import make_split
from satjepa.data.splits import LeakError, Split, windows


def cubes(regions: str, years: list[int], size: int = 128) -> list[xr.Dataset]:
    """Cubes with nothing in them but their size: all that a split looks at."""
    axes = {"year": years, "y": np.arange(size), "x": np.arange(size)}
    return [xr.Dataset(coords=axes, attrs={"region": region}) for region in regions]


def samples(regions: str, years: list[int], size: int = 128, patch: int = 32) -> list[dict]:
    pairs = [year for year in years if year + 1 in years]
    places = product(regions, pairs, windows((size, size), patch, patch))
    return [{"region": region, "year": year, "x": x, "y": y} for region, year, (x, y) in places]


def of_part(split: Split, part: str, some: list[dict]) -> list[dict]:
    return [sample for sample in some if split.part(part).allows(**sample)]


YEARS = [2017, 2018, 2019, 2020, 2021]
LETTERS = "ABCDEFGHIJKLMNOP"


@pytest.mark.parametrize("seed", range(5))
def test_region_split_has_no_region_in_two_parts(seed) -> None:
    split = make_split(cubes(LETTERS, YEARS), "region", seed, val=3, test=5)
    assert (len(split.train), len(split.val), len(split.test)) == (8, 3, 5)
    assert sorted(split.train + split.val + split.test) == list(LETTERS)
    everything = samples(LETTERS, YEARS)
    parts = {name: of_part(split, name, everything) for name in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(everything)
    split.assert_unseen(parts["val"] + parts["test"])
    with pytest.raises(LeakError, match="training saw every year of this place"):
        split.assert_unseen([*parts["test"], parts["train"][0]])


def test_region_split_depends_on_the_seed_only() -> None:
    some = cubes(LETTERS, YEARS)
    assert make_split(some, seed=1) == make_split(
        some[::-1] + some, seed=1
    )  # any order, any number of presets
    assert make_split(some, seed=1).test != make_split(some, seed=2).test


def test_region_split_takes_names() -> None:
    split = make_split(cubes("ABCDE", YEARS), val=["B"], test=["E", "A"])
    assert (sorted(split.train), split.val, split.test) == (["C", "D"], ("B",), ("E", "A"))
    assert make_split(cubes("ABCDE", YEARS), val=["B"], test=["E"], train=["C"]).train == ("C",)
    drawn = make_split(cubes("ABCDE", YEARS), val=["B"], test=2)
    assert drawn.val == ("B",) and len(drawn.test) == 2 and "B" not in drawn.test


def test_region_split_refuses_what_cannot_be() -> None:
    some = cubes("ABCDE", YEARS)
    with pytest.raises(ValueError, match="no region 'Alpha'"):
        make_split(some, val=["Alpha"])
    with pytest.raises(ValueError, match="is it 'Romania'"):
        make_split(
            [xr.Dataset(coords={"year": YEARS}, attrs={"region": "Romania"})], val=["Rumania"]
        )
    for val, test, train in ((1, 4, None), (3, 3, None), (["A", "B"], 3, None), (1, 4, ["A"])):
        with pytest.raises(ValueError, match="too few"):
            make_split(some, val=val, test=test, train=train)
    with pytest.raises(LeakError, match="B stands in"):
        make_split(some, val=["B"], test=["B", "C"])


def test_year_split_holds_out_the_last_pair_of_each_region() -> None:
    some = (
        cubes("A", YEARS)
        + cubes("B", [2015, 2016, 2018, 2019])
        + cubes("C", [2020, 2021])
        + cubes("D", [2020])
    )
    split = make_split(some, "year")
    assert split.test == ("A/2020", "B/2018", "C/2020") and split == make_split(some[::-1], "year")
    assert split.val == ("A/2019",)
    assert split.train == ("A/2017", "A/2018", "B/2015")
    everything = samples("A", YEARS)
    split.assert_unseen(of_part(split, "val", everything) + of_part(split, "test", everything))
    for year in 2017, 2018:
        with pytest.raises(LeakError, match=f"A {year} to {year + 1}.*training saw 2019"):
            split.assert_unseen([{"region": "A", "year": year, "x": 0, "y": 0}])


def test_published_split_is_leaky_and_the_guard_says_so() -> None:
    split = make_split(cubes("AB", YEARS), "published", patch=32)
    everything = samples("AB", YEARS)
    parts = {name: of_part(split, name, everything) for name in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [89, 13, 26] and len(everything) == 128
    assert split.leaky and not make_split(cubes(LETTERS, YEARS)).leaky
    with pytest.raises(LeakError, match="kind published, leaky"):
        split.assert_unseen(parts["test"])
    trained = {(s["region"], s["x"], s["y"], s["year"]) for s in parts["train"]}
    share = np.mean(
        [(s["region"], s["x"], s["y"], s["year"] + 1) in trained for s in parts["test"]]
    )
    assert share > 0.3  # of the images to be forecast are inputs in training


def test_published_guard_looks_at_overlap_and_year() -> None:
    split = Split("published", 0, ("A/2018/32/0",), (), (), patch=32)
    here = {"region": "A", "year": 2018, "x": 32, "y": 0}
    for unseen in ({"x": 0}, {"x": 64}, {"y": 32}, {"region": "B"}, {"year": 2019}):
        split.assert_unseen([{**here, **unseen}])
    for seen in ({}, {"x": 1}, {"x": 63}, {"y": 31}, {"year": 2017}):
        with pytest.raises(LeakError):
            split.assert_unseen([{**here, **seen}])


def test_an_entry_stands_in_one_part_and_fits_the_kind() -> None:
    with pytest.raises(LeakError, match="A stands in train and in test"):
        Split("region", 0, ("A", "B"), (), ("A",))
    with pytest.raises(ValueError, match="'A/2018' is no entry"):
        Split("region", 0, ("A/2018",), (), ())
    for kind, patch in (("random", 32), ("published", None)):
        with pytest.raises(ValueError, match="region, year, published"):
            make_split(cubes("ABC", YEARS), kind, patch=patch)
    with pytest.raises(ValueError, match="region, year, published"):
        Split("random", 0, (), (), ())


@pytest.mark.parametrize("kind", ["region", "year", "published"])
def test_file_round_trip(tmp_path, kind) -> None:
    split = make_split(cubes(LETTERS, YEARS), kind, 3, val=2, test=4, patch=64)
    split.save(tmp_path / "a" / "split.json")
    loaded = Split.load(tmp_path / "a" / "split.json")
    assert loaded.sha256 == split.sha256 and loaded.part("test") == split.part("test")
    content = json.loads((tmp_path / "a" / "split.json").read_text())
    assert content.keys() == {"kind", "seed", "train", "val", "test", "patch", "sha256"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["split.json"]


def test_a_file_edited_by_hand_is_refused(tmp_path) -> None:
    path = tmp_path / "split.json"
    make_split(cubes(LETTERS, YEARS)).save(path)
    content = json.loads(path.read_text())
    content["train"].append(content["test"].pop())
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="edited by hand"):
        Split.load(path)


def test_the_hash_is_of_the_content() -> None:
    split = make_split(cubes(LETTERS, YEARS))
    assert replace(split, train=split.train[::-1]).sha256 == split.sha256
    assert replace(split, seed=9).sha256 != split.sha256
    assert (
        replace(split, val=split.val[1:], train=split.train + split.val[:1]).sha256 != split.sha256
    )


def test_windows() -> None:
    assert windows((4, 6), 2, 2) == [(0, 0), (2, 0), (4, 0), (0, 2), (2, 2), (4, 2)]
    assert windows((100, 100), 64, 32) == [(0, 0), (32, 0), (0, 32), (32, 32)]
    assert windows((100, 63), 64, 32) == []
