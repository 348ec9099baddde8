"""What the pixels tell of images that can be read: clipping at both ends, and the offset of 1000
between years.
"""

import re

import numpy as np
import pytest

from satjepa.data.remarks import remarks
from satjepa.data.scenes import find_scenes


def land(seed: int, change: float = 0.0) -> np.ndarray:
    """Reflectance (3, 64, 64) of a place, .01 to .4, with `change` of it drawn anew."""
    place = np.random.default_rng(0).gamma(3, 0.04, (3, 64, 64)) + 0.01
    other = np.random.default_rng(seed).gamma(3, 0.04, (3, 64, 64)) + 0.01
    new = np.random.default_rng(seed + 1).random((64, 64)) < change
    return np.clip(np.where(new, other, place), 0.01, 0.6)


def store(reflectance: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "uint16":
        return np.rint(reflectance * 10_000).astype(dtype)
    return reflectance.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("added", [(0, 0, 0.1), (0.1, 0.1, 0)])
@pytest.mark.parametrize("change", [0, 0.3])
def test_an_offset_between_years_is_found_with_its_cure(tmp_path, make, dtype, added, change):
    paths = []
    for year, offset in zip((2020, 2021, 2022), added, strict=True):
        values = store(land(year, change) + offset, dtype)
        paths.append(make.tif(make.rgb_path(tmp_path, "Alpha", year), values))
    brighter, darker = (2022, 2021) if added[2] else (2021, 2022)
    (line,) = remarks(paths)
    assert re.match(rf"s2_rgb_Alpha_{brighter}_10km.tif: all values lie 0\.(099|100|101) ", line)
    assert f"s2_rgb_Alpha_{darker}" in line and "COPERNICUS/S2_SR_HARMONIZED" in line
    scenes = find_scenes(tmp_path)
    assert scenes.remarks == [line] and line in scenes.report() and len(scenes) == 3


def test_an_offset_under_scale_tags_is_found(tmp_path, make):
    before = make.tif(tmp_path / "2021.tif", store(land(1), "uint16"), scale=1e-4)
    after = make.tif(tmp_path / "2022.tif", store(land(1) + 0.1, "uint16"), scale=1e-4)
    assert len(remarks([before, after])) == 1
    right = make.tif(tmp_path / "2023.tif", store(land(1) + 0.1, "uint16"), scale=1e-4, offset=-0.1)
    assert remarks([before, right]) == []


@pytest.mark.parametrize(
    "after",
    [
        land(5, 0.5),
        land(5) * 1.6,  # brighter, but the dark stays dark
        land(5) + np.array([0.1, 0.02, 0.0])[:, None, None],  # of one band only
        land(5) + 0.3,
        land(5) + 0.02,
    ],
)
def test_other_changes_are_no_offset(tmp_path, make, after):
    first = make.tif(tmp_path / "2021.tif", store(land(1), "uint16"))
    assert remarks([first, make.tif(tmp_path / "2022.tif", store(after, "uint16"))]) == []


def test_a_haze_over_dark_land_is_no_offset(tmp_path, make):
    """With the offset no band has a pixel as dark as the darkest here."""
    dark = land(1) * 0.3
    first = make.tif(tmp_path / "2021.tif", store(dark, "uint16"))
    assert remarks([first, make.tif(tmp_path / "2022.tif", store(dark + 0.065, "uint16"))]) == []
    assert remarks([first, make.tif(tmp_path / "2023.tif", store(dark + 0.1, "uint16"))])


def test_display_images_and_empty_ones_have_no_offset(tmp_path, make):
    first = make.tif(tmp_path / "2021.tif", np.rint(land(1) * 255).astype(np.uint8))
    second = make.tif(tmp_path / "2022.tif", np.rint((land(1) + 0.1) * 255).astype(np.uint8))
    empty = make.tif(tmp_path / "2023.tif", np.zeros((3, 8, 8), np.uint16))
    assert remarks([first, second, empty, first]) == []


def test_clipping_is_told_at_both_ends(tmp_path, make):
    values = np.full((3, 10, 10), 3000, np.uint16)
    values[0, :2] = 800  # -0.02
    values[2, 5] = 12_500  # 1.15
    path = make.tif(tmp_path / "a.tif", values, scale=1e-4, offset=-0.1)
    assert remarks([path]) == [
        "a.tif: 20.0% of the pixels are below 0 and clipped",
        "a.tif: 10.0% of the pixels are above 1 and clipped",
    ]
    bright = np.full((3, 10, 10), 3000, np.uint16)
    bright[1, 0] = 16_000
    assert remarks([make.tif(tmp_path / "b.tif", bright)]) == [
        "b.tif: 10.0% of the pixels are above 1 and clipped"
    ]


def test_real_scenes_have_no_remarks(shared):
    assert find_scenes(shared / "data", ["RomaniaForest", "NaipNorthDakota"]).remarks == []
