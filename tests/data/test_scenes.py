"""Every bad input is a typed error that names the file; nothing unreadable becomes zeros (promise
P2).
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from affine import Affine

from satjepa.data.alphaearth import encode_alphaearth
from satjepa.data.errors import (
    BandCountError,
    CorruptRasterError,
    DuplicateYearError,
    EmptyRegionError,
    GridMismatchError,
    MissingYearError,
    ScaleError,
    SceneError,
)
from satjepa.data.rasters import read_rgb, rgb_scale
from satjepa.data.scenes import find_scenes, year_pairs


def refused(root: Path, error: type[SceneError], path: Path, *words: str, kept: int = 2) -> None:
    """`find_scenes` raises this error for this file, says these words, and with "exclude" keeps the
    other scenes.
    """
    with pytest.raises(error) as caught:
        find_scenes(root)
    text = str(caught.value)
    assert caught.value.path == path and str(path) in text
    assert all(word in text for word in (*words, "found", "accepted", "To fix"))
    scenes = find_scenes(root, on_bad="exclude")
    assert len(scenes) == kept
    assert [(p, type(e)) for p, e in scenes.excluded] == [(path, error)]
    assert f"{kept} scenes kept, 1 excluded" in scenes.report() and text in scenes.report()


# finding


def test_finds_the_published_layout(good, make) -> None:
    make.region(good, "Beta", [2021])
    shutil.move(make.emb_path(good, "Beta", 2021), make.emb_path(good, "Beta", 2021, "embedding"))
    make.tif(good / "Beta" / "something_else_2020_10km.tif", np.zeros((1, 4, 4), np.uint8))
    scenes = find_scenes(good)
    assert [(s.region, s.year) for s in scenes] == [
        ("Alpha", 2018),
        ("Alpha", 2019),
        ("Alpha", 2020),
        ("Beta", 2021),
    ]
    assert scenes[0].rgb == make.rgb_path(good, "Alpha", 2018)
    assert scenes[3].emb == make.emb_path(good, "Beta", 2021, "embedding")
    assert scenes[0].truth is None and scenes.excluded == []


def test_a_number_in_the_name_of_a_region_is_no_year(good, make) -> None:
    make.region(good, "Area_2019", [2021])
    assert [s.year for s in find_scenes(good, ["Area_2019"])] == [2021]


def test_truth_belongs_to_the_years_that_have_it(tmp_path, make) -> None:
    make.region(tmp_path, "Alpha", [2018, 2019], truth=True)
    first, second = find_scenes(tmp_path)
    assert first.truth is None and second.truth == tmp_path / "Alpha" / "truth"
    (second.truth / "process_Alpha_2019.tif").unlink()
    refused(tmp_path, MissingYearError, second.truth / "process_Alpha_2019.tif", kept=1)


def test_empty_region(good) -> None:
    (good / "Empty").mkdir()
    (good / "Empty" / "notes.txt").write_text("nothing here")
    refused(good, EmptyRegionError, good / "Empty", "notes.txt", kept=3)


def test_no_region_at_all_is_an_error_even_when_bad_ones_are_excluded(tmp_path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        with pytest.raises(EmptyRegionError, match=r"data\.root"):
            find_scenes(root, on_bad="exclude")


def test_two_files_for_one_year(good, make) -> None:
    first = make.rgb_path(good, "Alpha", 2019)
    second = first.with_name("s2_rgb_Alpha_2019_10km (1).tif")
    shutil.copy(first, second)
    refused(good, DuplicateYearError, max(first, second), first.name, second.name)


def test_two_embeddings_for_one_year(good, make) -> None:
    first, second = (
        make.emb_path(good, "Alpha", 2019, prefix) for prefix in ("embedding", "gee_embeddings")
    )
    shutil.copy(second, first)
    refused(good, DuplicateYearError, second, first.name)


# years


def test_a_gap_is_no_pair() -> None:
    assert year_pairs([2012, 2009, 2010, 2014, 2015]) == [(2009, 2010), (2014, 2015)]


# what cannot be read


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_rgb(good, make, share) -> None:
    path = make.rgb_path(good, "Alpha", 2019)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(good, CorruptRasterError, path)


def test_truncated_embedding(good, make) -> None:
    path = make.emb_path(good, "Alpha", 2020)
    path.write_bytes(path.read_bytes()[:-500])
    refused(good, CorruptRasterError, path)


@pytest.mark.parametrize("bands", [1, 4])
def test_wrong_band_count(good, make, bands) -> None:
    path = make.tif(make.rgb_path(good, "Alpha", 2019), np.ones((bands, 48, 48), np.uint8))
    refused(good, BandCountError, path, f"{bands} bands", "3 bands")


def test_wrong_band_count_of_an_embedding(good, make) -> None:
    path = make.tif(make.emb_path(good, "Alpha", 2019), np.ones((63, 48, 48), np.int8))
    refused(good, BandCountError, path, "63 bands", "64 bands")


# scale


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        *[
            ("uint16", 0, 255),
            ("uint16", 3, 20001),
            ("uint16", 1, 65535),
            ("int16", 100, 4000),
            ("uint32", 100, 4000),
        ],
        *[
            ("float32", 0, 255),
            ("float32", 0, 1.01),
            ("float64", -9999, 0.4),
            ("float32", -0.01, 0.4),
        ],
    ],
)
def test_scale_that_fits_no_convention(good, make, dtype, low, high) -> None:
    values = np.full((3, 48, 48), low, dtype)
    values[:, 5, 5] = high
    path = make.tif(make.rgb_path(good, "Alpha", 2019), values)
    refused(good, ScaleError, path, dtype, f"{values.max():g}", "uint16", "float", "nodata")


# grids


@pytest.mark.parametrize(
    ("size", "options", "word"),
    [
        (48, {"crs": "EPSG:32634"}, "EPSG:32634 instead of EPSG:32635"),
        (47, {}, "47x47 instead of 48x48"),
        (48, {"transform": Affine(10, 0, 400_001, 0, -10, 5_200_000)}, "transform"),
        (48, {"transform": Affine(10.1, 0, 400_000, 0, -10, 5_200_000)}, "transform"),
    ],
)
def test_grid_mismatch_between_years(good, make, size, options, word) -> None:
    path = make.rgb_path(
        good, "Alpha", 2018
    )  # the first year: the usual grid counts, not the first one
    make.emb_path(good, "Alpha", 2018).unlink()
    make.tif(path, np.ones((3, size, size), np.uint8), **options)
    refused(good, GridMismatchError, path, word)


def test_a_tenth_of_a_millimetre_is_the_same_grid(good, make) -> None:
    nearly = Affine(10, 0, 400_000.0001, 0, -10, 5_200_000)
    make.tif(make.rgb_path(good, "Alpha", 2018), np.ones((3, 48, 48), np.uint8), nearly)
    assert len(find_scenes(good)) == 3


def test_grid_mismatch_between_rgb_and_embedding(good, make) -> None:
    path = make.tif(make.emb_path(good, "Alpha", 2019), encode_alphaearth(make.vectors(0, 24)))
    refused(good, GridMismatchError, path, "24x24", "s2_rgb_Alpha_2019")


def test_embeddings_on_another_scale(good, make) -> None:
    path = make.emb_path(good, "Alpha", 2019)
    vectors = make.vectors(0, 48)
    for values, word in (
        (np.rint(vectors * 127).astype(np.int8), "median length"),  # a linear code
        ((vectors * 3).astype(np.float32), "median length 3"),
        (np.rint(vectors * 50 + 100).astype(np.uint8), "type uint8"),
    ):
        make.tif(path, values)
        refused(good, ScaleError, path, word, "int8 codes")


# real files


def test_real_scenes(shared) -> None:
    scenes = find_scenes(shared / "data", ["RomaniaForest", "NaipNorthDakota"])
    assert [s.year for s in scenes] == [
        2016,
        2017,
        2018,
        2019,
        2009,
        2010,
        2012,
        2014,
        2015,
        2016,
        2017,
    ]
    pairs = year_pairs(s.year for s in scenes if s.region == "NaipNorthDakota")
    assert pairs == [(2009, 2010), (2014, 2015), (2015, 2016), (2016, 2017)]
    rgb, valid = read_rgb(scenes[1].rgb)
    assert rgb.shape == (3, 100, 100) and valid.all() and rgb_scale(scenes[1].rgb) == (1, 0)
    assert rgb.min() > 0.012 and rgb.max() == np.float32(0.152)  # as stored
    with pytest.raises(EmptyRegionError, match="S2Patches"):
        find_scenes(shared / "data", ["S2Patches"])
