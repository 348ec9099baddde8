"""Captions measured from pixels: true on images whose content is known, and telling on real
ones.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from satjepa.captions import cover
from satjepa.captions.cover import (
    BROWN,
    CLEARING,
    COVERS,
    FOREST,
    GRASS,
    MARSH,
    PALE,
    SITE,
    TOWN,
    WATER,
    YELLOW,
)
from satjepa.captions.rules import caption
from satjepa.contracts import Captions
from satjepa.data.display import REFLECTANCE_WHITE

QUARTERS = ("northwest", "northeast", "southwest", "southeast")
FOREST_RGB = (0.10, 0.18, 0.11)
WATER_RGB = (0.07, 0.14, 0.19)
YELLOW_RGB = (0.72, 0.68, 0.22)
BROWN_RGB = (0.45, 0.34, 0.25)
GRASS_RGB = (0.34, 0.43, 0.24)
TOWN_RGB = (0.50, 0.49, 0.49)
SITE_RGB = (0.80, 0.74, 0.66)
CROPS_RGB = (0.26, 0.47, 0.20)
MARSH_RGB = (0.22, 0.30, 0.24)


def paint(
    *areas: tuple[tuple[slice, slice], tuple], size: int = 64, ground: tuple = GRASS_RGB
) -> np.ndarray:
    """An image (3,size,size) of rectangles with a little noise, as rough as fields are."""
    image = np.empty((3, size, size), np.float32)
    image[:] = np.array(ground)[:, None, None]
    for where, colour in areas:
        image[(slice(None), *where)] = np.array(colour)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 0.012, (1, size, size)).astype(np.float32)
    return np.clip(image + noise * (image.mean(0) > 0.15), 0, 1)


def box(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    return slice(top, bottom), slice(left, right)


def covers(image: np.ndarray) -> np.ndarray:
    return cover.cover_map(image, np.ones(image.shape[1:], bool))


def quarters(text: str) -> dict[str, set[str]]:
    """northwest: {cover, cover}, ... of a semantic caption."""
    found = re.findall(
        rf"({'|'.join(QUARTERS)}) ([a-z ]+?)(?=[,.])", text.split(". ")[1].lower() + "."
    )
    return {word: set(said.split(" and ")) for word, said in found}


def percent(text: str) -> dict[str, int]:
    return {
        name.lower(): int(number)
        for name, number in re.findall(r"(?:^|, )([A-Za-z ]+?) (\d+)", text)
    }


@pytest.fixture(scope="session")
def real(shared: Path) -> list[np.ndarray]:
    files = sorted((shared / "data" / "S2Patches").glob("*.jpeg"))
    return [
        np.asarray(Image.open(f).convert("RGB"), np.float32).transpose(2, 0, 1) / 255 for f in files
    ]


def test_shares_are_the_painted_ones() -> None:
    image = paint(
        (box(0, 32, 0, 64), FOREST_RGB),
        (box(32, 64, 0, 16), WATER_RGB),
        (box(44, 64, 32, 64), YELLOW_RGB),
    )
    said = percent(caption(image).informative)
    painted = {"forest": 50, "water": 12.5, "yellow crops": 15.6, "grass": 21.9}
    assert set(said) == set(painted)
    assert all(abs(said[name] - share) <= 5 for name, share in painted.items())


def test_equal_images_give_equal_captions_and_the_input_is_left_alone() -> None:
    image = paint((box(0, 32, 0, 64), FOREST_RGB))
    before = image.copy()
    assert caption(image) == caption(before.copy())
    assert np.array_equal(image, before)


def test_quarters_turn_with_the_image() -> None:
    image = paint(
        (box(0, 32, 0, 32), FOREST_RGB),
        (box(0, 32, 32, 64), YELLOW_RGB),
        (box(32, 64, 32, 64), BROWN_RGB),
    )
    said = quarters(caption(image).semantic)
    painted = ({"forest"}, {"yellow crops"}, {"grass"}, {"brown soil"})
    assert said == dict(zip(QUARTERS, painted, strict=True))
    turned = quarters(
        caption(np.rot90(image, 1, (1, 2))).semantic
    )  # a quarter turn against the clock
    there = dict(zip(QUARTERS, ("southwest", "northwest", "southeast", "northeast"), strict=True))
    assert turned == {there[word]: what for word, what in said.items()}


def test_the_encoding_of_the_values_does_not_matter() -> None:
    image = paint(
        (box(0, 32, 0, 64), FOREST_RGB),
        (box(40, 64, 0, 30), WATER_RGB),
        (box(40, 64, 40, 64), CROPS_RGB),
        ground=BROWN_RGB,
    )
    assert cover.guess_encoding(image) == "display"
    assert cover.guess_encoding((image * REFLECTANCE_WHITE) ** (1 / 2.2)) == "gamma"
    assert cover.guess_encoding(image * 0.2) == "reflectance"
    dark = image * REFLECTANCE_WHITE
    for encoding, stored in (("reflectance", dark), ("gamma", dark ** (1 / 2.2))):
        assert np.allclose(cover.display(stored, encoding), image, atol=1e-4)
        assert caption(stored, encoding=encoding).semantic == caption(image).semantic


def test_what_is_not_valid_is_not_described() -> None:
    image = paint((box(0, 32, 0, 64), FOREST_RGB))
    valid = np.ones((64, 64), bool)
    valid[32:, 32:] = False
    spoiled = np.where(valid, image, 0.9).astype(np.float32)
    assert (
        caption(spoiled, valid)
        == caption(np.where(valid, image, 0).astype(np.float32))
        == caption(image, valid)
    )
    assert "No data in 25 percent." in caption(image, valid).informative
    assert quarters(caption(image, valid).semantic)["southeast"] == {"no data"}
    assert caption(image, ~valid | valid).informative.find("No data") == -1
    assert set(caption(image, np.zeros_like(valid))) == {"No data."}


def test_bare_ground_is_a_clearing_only_inside_a_forest() -> None:
    hole = box(20, 36, 20, 36)
    in_forest, in_fields = (
        covers(paint((hole, BROWN_RGB), ground=ground)) for ground in (FOREST_RGB, GRASS_RGB)
    )
    assert (in_forest[hole] == CLEARING).mean() > 0.7
    assert (in_fields[hole] == BROWN).mean() > 0.7
    assert "clearing" in caption(paint((hole, BROWN_RGB), ground=FOREST_RGB)).semantic
    assert "No sign of change." in caption(paint((hole, BROWN_RGB))).semantic


def test_pale_ground_is_a_building_site_only_beside_houses() -> None:
    plot = box(30, 40, 40, 50)
    town = box(20, 50, 10, 40)
    assert (covers(paint((plot, SITE_RGB), (town, TOWN_RGB)))[plot] == SITE).mean() > 0.6
    assert (covers(paint((plot, SITE_RGB)))[plot] == PALE).mean() > 0.6


def test_dark_green_ground_is_a_marsh_only_beside_a_lake() -> None:
    belt = box(40, 45, 0, 64)
    lake = box(45, 64, 0, 64)
    assert (covers(paint((belt, MARSH_RGB), (lake, WATER_RGB)))[belt] == MARSH).mean() > 0.5
    assert not (covers(paint((belt, MARSH_RGB)))[belt] == MARSH).any()


def test_roads_and_rivers_are_named_with_their_direction() -> None:
    image = paint((box(0, 64, 20, 26), WATER_RGB), (box(44, 47, 0, 64), TOWN_RGB), ground=CROPS_RGB)
    text = caption(image).geometric
    assert "River north to south and road west to east." in text
    assert (
        "River west to east and road north to south." in caption(image.transpose(0, 2, 1)).geometric
    )
    lake = caption(paint((box(0, 40, 0, 40), WATER_RGB))).geometric
    assert "iver" not in lake and "oad" not in lake


def test_parcels_are_counted_and_measured() -> None:
    quarter = [
        (box(32 * i, 32 * i + 32, 32 * j, 32 * j + 32), (i + j) % 2) for i in (0, 1) for j in (0, 1)
    ]
    image = paint(*((where, (YELLOW_RGB, BROWN_RGB)[kind]) for where, kind in quarter))
    assert caption(image).geometric.startswith("Four very large parcels, on an upright grid.")
    assert caption(paint(ground=FOREST_RGB)).geometric.startswith("No parcels")


def test_vigour_brightness_and_contrast_follow_the_image() -> None:
    green, bare, mixed = (
        caption(i).informative
        for i in (
            paint(ground=CROPS_RGB),
            paint(ground=SITE_RGB),
            paint((box(0, 32, 0, 64), WATER_RGB), ground=SITE_RGB),
        )
    )
    assert "Very strong vigour" in green
    assert "No vigour, very bright, flat contrast" in bare
    assert "high contrast" in mixed


def test_covers_of_pure_colours() -> None:
    names = {
        FOREST: FOREST_RGB,
        WATER: WATER_RGB,
        YELLOW: YELLOW_RGB,
        GRASS: GRASS_RGB,
        BROWN: BROWN_RGB,
    }
    for kind, colour in names.items():
        assert (covers(paint(ground=colour)) == kind).mean() > 0.9, COVERS[kind]
    roofs = [
        (box(i, i + 3, j, j + 3), (0.62, 0.60, 0.60))
        for i in range(0, 64, 5)
        for j in range(0, 64, 5)
    ]
    blocks = paint(*roofs, ground=BROWN_RGB)
    assert (covers(blocks) == TOWN).mean() > 0.8  # brown roofs among grey ones: rough everywhere


@pytest.fixture(scope="session")
def captions(real: list[np.ndarray]) -> list[Captions]:
    return [caption(image) for image in real]


def test_real_patches_get_captions_of_their_own(
    real: list[np.ndarray], captions: list[Captions]
) -> None:
    assert {cover.guess_encoding(image) for image in real} == {"gamma"}
    for kind in range(3):
        assert len({c[kind] for c in captions}) >= 48  # measured: 50 of 50 in all three
    words = [re.findall(r"\w+|[^\w\s]", text.lower()) for c in captions for text in c]
    assert max(map(len, words)) <= 44  # measured: 38
    assert len({w for text in words for w in text}) <= 130  # a closed vocabulary; measured: 100


def test_real_patches_are_described_truly(captions: list[Captions]) -> None:
    """What a reader sees at a glance on some of them (the number is the place in the sorted list of
    files).
    """

    def share(number: int, *names: str) -> int:
        return sum(percent(captions[number].informative).get(name, 0) for name in names)

    assert 25 <= share(2, "water") <= 40 and "water" in quarters(captions[2].semantic)["northwest"]
    assert 30 <= share(23, "water") <= 45 and quarters(captions[23].semantic)["southeast"] == {
        "water"
    }
    assert share(24, "forest") >= 65 and captions[24].semantic.startswith("Forest")
    assert share(15, "buildings") >= 50 and captions[15].semantic.startswith("Town")
    assert captions[19].semantic.startswith("Farmland with forest")
    assert "No data in 35 percent." in captions[49].informative


def test_dark_reflectance_is_described_as_forest(shared: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(shared / "data/RomaniaForest/s2_rgb_RomaniaForest_2018_10km.tif") as tif:
        image = tif.read()
    assert cover.guess_encoding(image) == "reflectance"
    assert percent(caption(image).informative)["forest"] >= 50


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (3, 40)])
@pytest.mark.parametrize("colour", [WATER_RGB, TOWN_RGB, FOREST_RGB])
def test_an_image_of_few_pixels_gets_a_caption(size, colour) -> None:
    image = np.broadcast_to(np.array(colour, np.float32)[:, None, None], (3, *size))
    texts = caption(image, np.ones(size, bool), "display")
    assert percent(texts.informative).popitem()[1] == 100
    if max(size) < 6:
        assert "iver" not in texts.geometric and "oad" not in texts.geometric
