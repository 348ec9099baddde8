"""The shipped example scene: what it holds, and that it can be made again."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from satjepa.data.stack import read_stack, years_of
from satjepa.demo import example
from satjepa.demo.render import read_recipe

REPO = Path(__file__).resolve().parents[2]
SHIPPED = REPO / "assets/example"


def shipped_files() -> list[Path]:
    folder = SHIPPED / example.REGION
    return [*sorted(folder.glob("*.tif")), *(folder / "truth").glob("*.tif")]


def test_it_is_small_and_holds_three_years_and_the_truth() -> None:
    *images, truth = shipped_files()
    assert years_of(images) == example.YEARS and years_of([truth]) == (example.TRUTH,)
    stack = read_stack([*images, truth], [*example.YEARS, example.TRUTH], [1.0] * 4)  # on one grid
    assert stack.rgb.shape == (4, 3, example.SIDE, example.SIDE)
    assert stack.valid.all()
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*.tif")) < 1_000_000


def test_no_model_is_trained_on_its_region() -> None:
    regions = read_recipe(REPO / example.RECIPE)["regions"]
    assert example.REGION in regions["test"]
    assert example.REGION not in regions["train"] + regions["val"]


@pytest.fixture(scope="module")
def remade(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return example.write_example(tmp_path_factory.mktemp("example"), REPO / example.RECIPE)


def test_it_can_be_made_again(remade: list[Path]) -> None:
    assert [file.name for file in remade] == [file.name for file in shipped_files()]
    for again, file in zip(remade, shipped_files(), strict=True):
        with rasterio.open(again) as a, rasterio.open(file) as b:
            np.testing.assert_array_equal(a.read(), b.read())
            assert (a.crs, a.transform) == (b.crs, b.transform)
