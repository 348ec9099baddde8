"""The demo world: its oracle is exact, its pixels are the same everywhere, its change has the size
it claims.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from satjepa.data import parallel
from satjepa.demo.render import Camera, read_recipe, simulate, write_world, write_year
from satjepa.demo.terrain import stream
from satjepa.demo.world import CLASSES, INDEX, PROCESSES, Climate, Land, process_of_change
from satjepa.paths import root

RECIPE = read_recipe(root() / "assets/demo/world.yaml")


def climate(preset: str = "strong") -> Climate:
    return Climate.of(RECIPE["presets"][preset])


@pytest.fixture(scope="module")
def land() -> Land:
    return Land((0, "test", "Somewhere"), 96, climate())


def years_of(preset: str, region: str, count: int = 4) -> list:
    return list(
        simulate(
            RECIPE["seed"], preset, region, climate(preset), RECIPE["years"][:count], RECIPE["size"]
        )
    )


@pytest.fixture(scope="module")
def test_years() -> dict[str, list]:
    return {
        f"{preset}/{name}": years_of(preset, name)
        for preset in ("strong", "gentle")
        for name in RECIPE["regions"]["test"][-2:]
    }


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the 64 px patches of a region, as the table has it."""
    error = ((a / 255.0 - b / 255.0) ** 2).mean(0).reshape(4, 64, 4, 64).mean((1, 3))
    return float((-10 * np.log10(error)).mean())


def test_odds_are_probabilities(land: Land) -> None:
    for name, odds in land.transition().items():
        assert (odds >= 0).all(), name
        np.testing.assert_allclose(odds.sum(-1), 1, atol=1e-12, err_msg=name)


def test_cover_is_one_class_a_pixel(land: Land) -> None:
    cover = land.cover()
    assert set(np.unique(cover)) == {0.0, 1.0}
    assert (cover.sum(0) == 1).all()
    np.testing.assert_allclose(land.expected_cover().sum(0), 1, atol=1e-12)


def test_oracle_is_the_mean_of_many_futures(land: Land) -> None:
    draws = 120
    rng = stream("draws")
    mean = sum(land.advance(rng).cover() for _ in range(draws)) / draws
    expected = land.expected_cover()
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(mean - expected) <= 5 * error + 1e-9).mean() > 0.9999
    assert not np.allclose(land.expected_cover(), land.cover())


def test_expected_image_is_the_mean_of_many_shots(land: Land) -> None:
    camera = Camera(land)
    cover = land.cover()
    shots = np.mean([camera.shot(cover, i) for i in range(40)], 0)
    assert np.abs(shots - camera.expected(cover)).mean() < 2.0  # of 255; one shot is off by about 6
    assert np.abs(camera.shot(cover, 0).astype(float) - camera.expected(cover)).mean() > 3.0


def test_same_pixels_everywhere() -> None:
    digest = hashlib.sha256()
    for year in simulate(3, "strong", "Hashed", climate(), [2017, 2018, 2019], 96):
        digest.update(year.rgb.tobytes())
    assert digest.hexdigest() == "544ad05d94ab2d7b004d013eab3f931ff8b91997436076579fbbaedd706c42ea"


def test_a_world_is_the_same_on_one_core_and_on_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digest is that of its pixels in the order of the recipe, whichever region is ready
    first.
    """
    names = ["Later", "Earlier", "Third"]
    recipe = RECIPE | {"size": 96, "years": [2017, 2018], "regions": {"test": names}}
    recipe |= {"presets": {"gentle": RECIPE["presets"]["gentle"]}}
    digest = hashlib.sha256()
    for name in names:
        for year in simulate(
            recipe["seed"], "gentle", name, climate("gentle"), recipe["years"], recipe["size"]
        ):
            for array in write_year(year, tmp_path / "one by one" / name, 33):
                digest.update(array.tobytes())
    for cores in (1, 2):
        monkeypatch.setattr(parallel.os, "cpu_count", lambda cores=cores: cores)
        assert write_world(recipe, tmp_path / str(cores), progress=False) == digest.hexdigest()


def test_change_has_the_size_the_recipe_claims(test_years: dict[str, list]) -> None:
    scores = {"strong": [], "gentle": []}
    for name, years in test_years.items():
        for before, after in pairwise(years):
            scores[name.split("/")[0]].append(
                (
                    psnr(before.rgb, after.rgb),
                    psnr(after.oracle_mean, after.rgb),
                    psnr(after.oracle_sample, after.rgb),
                )
            )
    strong, gentle = (np.mean(scores[p], 0) for p in ("strong", "gentle"))
    assert 15.5 < strong[0] < 20
    assert strong[1] > strong[0] + 6
    assert 27 < gentle[0] < 33
    assert strong[1] > strong[2] > strong[0]
    assert gentle[1] > gentle[2] > gentle[0]


def test_every_process_happens(test_years: dict[str, list]) -> None:
    seen = {
        code
        for years in test_years.values()
        for year in years[1:]
        for code in np.unique(year.process)
    }
    assert seen == set(range(len(PROCESSES)))


def test_embeddings_are_unit_and_drift_as_real_ones(test_years: dict[str, list]) -> None:
    years = next(iter(test_years.values()))
    np.testing.assert_allclose(np.linalg.norm(years[0].embedding, axis=0), 1, atol=1e-9)
    cosine = (years[1].embedding * years[2].embedding).sum(0)
    assert 0.96 < np.median(cosine[years[2].process == 0]) < 0.985
    assert np.median(cosine[years[2].process == PROCESSES.index("crop")]) < 0.9


def test_embedding_drift_compares_with_alphaearth(shared) -> None:
    real = np.load(next((shared / "data/aef_points").glob("*.npz")))
    vectors = next(real[k] for k in real.files if real[k].ndim == 3 and real[k].dtype.kind == "f")
    median = np.median((vectors[:, 1:] * vectors[:, :-1]).sum(-1))
    ours = years_of("gentle", RECIPE["regions"]["test"][0], 2)
    assert abs(np.median((ours[0].embedding * ours[1].embedding).sum(0)) - median) < 0.02


@pytest.mark.parametrize(
    ("before", "after", "process"),
    [
        ("wheat", "maize", "crop"),
        ("forest", "cut", "forest"),
        ("meadow", "site", "town"),
        ("mud", "fallow", "water"),
        ("dry", "burnt", "fire"),
        ("burnt", "shrub", "fire"),
        ("forest", "forest", "none"),
    ],
)
def test_process_of_change(before: str, after: str, process: str) -> None:
    maps = [np.array([[INDEX[name]]]) for name in (before, after)]
    assert PROCESSES[process_of_change(*maps)[0, 0]] == process


def test_regions_differ_and_classes_all_occur() -> None:
    first, second = (Land((0, "test", name), 128, climate()) for name in ("A", "B"))
    assert (first.cover() != second.cover()).any(0).mean() > 0.5
    assert len(CLASSES) == len(INDEX) == 18


def test_written_in_the_published_layout(tmp_path) -> None:
    import rasterio

    from satjepa.data.rasters import read_rgb
    from satjepa.data.scenes import find_scenes

    years = list(simulate(3, "strong", "Written", climate(), [2017, 2018], 96))
    for year in years:
        write_year(year, tmp_path / "Written", 32)
    scenes = find_scenes(tmp_path)
    assert [(s.region, s.year) for s in scenes] == [("Written", 2017), ("Written", 2018)]
    assert scenes[1].truth is not None
    rgb, valid = read_rgb(scenes[1].rgb)
    np.testing.assert_array_equal(np.rint(rgb * 255), years[1].rgb)
    assert valid.all()
    with rasterio.open(scenes[1].emb) as tif:
        assert (tif.count, tif.dtypes[0], tif.crs.to_epsg(), tif.res) == (
            64,
            "int8",
            32632,
            (10.0, 10.0),
        )
