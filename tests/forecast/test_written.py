"""Members of a scene that are led by sentences: each its own, told beside the forecast."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import xarray
from forecast_files import Noise, image, quiet, write
from reach import REPO
from typer.testing import CliRunner

import satjepa
from satjepa import cli
from satjepa.assemble import load_text_encoders
from satjepa.data.share import Share
from satjepa.data.stack import ForecastError
from satjepa.forecast import Settings, check_files, forecast_images, forecast_raster, forecasting
from satjepa.forecast.folder import target_of
from satjepa.forecast.led import Sentence, Telling, of_the_middle, read_sentences
from satjepa.forecast.load import Model
from satjepa.forecast.page_folder import page_of
from satjepa.forecast.rollout import rollout
from satjepa.forecast.tiles import tile_batch
from satjepa.models.led import Led
from satjepa.training.writer import NAME, new_writer, save_writer


class Says(Led):
    """Grey with noise of the place, a shade for each member; says which seed, member and place."""

    def __init__(self, stop_at: int = 10**6) -> None:
        super().__init__(Noise(), None, None, None)
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "stop_at", stop_at)

    def with_sentences(self, batch: dict, samples: int = 1, seed: int = 0) -> tuple:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append((samples, seed))
        sentences = []
        for member in range(samples):
            places = [(m["year"], m["x"], m["y"]) for m in batch["meta"]]
            sentences.append([f"{seed} {member} {place}" for place in places])
        return self.joint.forecast(batch, samples, seed), sentences


class Second(Share):
    """A process that finds the others where it is."""

    def wait(self) -> None:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write(tmp_path / "in/a_2019.tif", image(150, 50))


HOW = {"patch": 32, "samples": 2, "batch": 2, "tags": {"MODEL": "m", "CAPTIONS": "written"}}


def test_each_member_of_each_tile_has_a_sentence_whatever_the_batch(path: Path) -> None:
    told = []
    for batch in (1, 2, 16):
        settings = Settings(**HOW | {"batch": batch})
        made = forecast_images(check_files([path], None), Says(), settings, **quiet)
        told.append([*made.sentences()])
        assert [*made.sentences(1)] == []
    first = told[0]
    assert first == told[1] == told[2]
    assert first[:2] == [Sentence(0, 0, 0, 32, 1, "0 0 (2019, 0, 0)"),
                         Sentence(0, 0, 0, 32, 2, "0 1 (2019, 0, 0)")]  # fmt: skip
    assert len(first) == len(set(first)) == 2 * made.plan.count
    assert [(one.y, one.x) for one in first] == sorted((one.y, one.x) for one in first)


def test_a_run_that_was_stopped_and_one_of_two_processes_tell_the_same(
    path: Path, tmp_path: Path
) -> None:
    request = check_files([path], tmp_path / "o.tif")
    expected = forecast_images(request, Says(), Settings(**HOW), **quiet)
    whole = [*expected.sentences()]
    with pytest.raises(KeyboardInterrupt):
        forecast_raster(request, tmp_path / "o.tif", Says(stop_at=5), **HOW, **quiet)
    second = Says()
    with forecasting(request, second, Settings(**HOW), tmp_path / "o.tif", **quiet) as made:
        assert [*made.sentences()] == whole
    assert len(second.asked) < len(whole) / 4
    settings = Settings(**HOW)
    out = tmp_path / "p.tif"
    with forecasting(request, Says(), settings, out, **quiet, share=Second(1, 2)):
        pass  # the second process leaves its rows to the first
    with forecasting(request, second, settings, out, **quiet) as made:
        assert [*made.sentences()] == whole
        np.testing.assert_array_equal(made.moments(0, 150), expected.moments(0, 150))


def test_a_forecaster_without_a_writer_tells_nothing(path: Path) -> None:
    made = forecast_images(check_files([path], None), Noise(), Settings(**HOW), **quiet)
    assert [*made.sentences()] == []


def test_later_years_are_led_by_sentences_of_their_own() -> None:
    batch = {"rgb_t": torch.zeros(2, 3, 8, 8), "valid_t": torch.ones(2, 1, 8, 8).bool(),
             "history": torch.zeros(2, 1, 3, 8, 8), "history_valid": torch.ones(2, 1).bool(),
             "meta": [{"preset": "p", "region": "", "year": 2019, "x": x, "y": 0, "tile": 8}
                      for x in (0, 8)]}  # fmt: skip
    telling = Telling(Says())
    rollout(telling, batch, 3, 5, 2)
    told = telling.sentences()
    assert [one[:5] for one in told] == [
        (ahead, x, 0, 8, member) for ahead in (0, 1) for x in (0, 8) for member in (1, 2, 3)
    ]
    assert [one.text for one in told[:3]] == [f"5 {member} (2019, 0, 0)" for member in range(3)]
    later = [one.text for one in told if one.ahead == 1]
    seeds = [seed for _, seed in telling.led.asked[1:]]
    assert later[:3] == [f"{seed} 0 (2020, 0, 0)" for seed in seeds] and len(set(seeds)) == 3


def test_the_folder_the_item_and_the_page_tell_them(path: Path, tmp_path: Path) -> None:
    target = target_of([path], tmp_path / "out", years=2, written=True)
    settings = Settings(**HOW, years=2, kept=target.kept(2))
    with forecasting(target.request, Says(), settings, target.anchor, **quiet) as made:
        files = target.write(made)
        expected = [*made.sentences(1)]
    names = [file.name for file in files if file.suffix == ".csv"]
    assert names == ["sentences_2020.csv", "sentences_2021.csv"]
    later = read_sentences(target.out / names[1])
    assert later == [one._replace(ahead=0) for one in expected] and len(later) > 8
    with (target.out / names[1]).open(newline="") as file:
        assert next(csv.reader(file)) == ["x", "y", "side", "member", "text"]
    item = json.loads((target.out / "forecast_2021.json").read_text())
    assert item["assets"]["sentences"]["href"] == "./sentences_2021.csv"
    assert item["properties"]["satjepa:captions"] == "written"
    page = page_of(target.out, files=files).read_text()
    said = json.loads(page.split('"captions": ')[1].split(', "settings"')[0])
    (shown,) = [one for one in said if one["title"].startswith("2021, what led")]
    assert shown["title"].endswith("of the tile in the middle") and shown["year"] == 2021
    texts = of_the_middle(later)
    assert shown["parts"] == [["member 1", texts[0]], ["member 2", texts[1]]]
    (target.out / names[1]).unlink()
    assert "2021, what led" not in page_of(target.out).read_text()


def test_the_middle_is_that_of_all_tiles() -> None:
    tiles = [(x, y) for y in (0, 24, 50) for x in (0, 20, 41)]
    told = [Sentence(0, x, y, 32, m, f"{x} {y} {m}") for x, y in tiles for m in (1, 2)]
    assert of_the_middle(told) == ["20 24 1", "20 24 2"]
    assert of_the_middle(told[:2]) == ["0 0 1", "0 0 2"]


# ---- the model itself, with a writer that has learned nothing ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model, and a writer for it."""
    folder = tmp_path_factory.mktemp("written") / "model"
    folder.mkdir()
    for file in (REPO / "assets/demo_model").iterdir():
        if file.name != NAME:
            (folder / file.name).symlink_to(file)
    joint = satjepa.load(folder, "cpu").joint
    encoders = load_text_encoders(joint.params, "cpu")
    small = joint.params.writer.model_copy(update={"dim": 16, "layers": 1, "heads": 1})
    writer = new_writer(joint, encoders, small, seed=0)
    torch.nn.init.normal_(writer.words.weight, std=0.5)  # untrained, but not shy
    save_writer(folder / NAME, writer, joint, encoders, [])
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return satjepa.load(folder, "cpu", written=True, steps=1)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "s_2021.tif", image(64, 112))


def test_sentences_belong_to_seed_member_and_place(model: Model, scene: Path) -> None:
    forecast = model.forecast(scene, samples=2)
    told = forecast.sentences
    assert len(told) == len({one.text for one in told}) == 4
    stack = forecast._made.scene.read(0, 64, 112)
    alone = tile_batch(stack, [(0, told[2].x)], 64, 2, model.embed)
    assert [one.text for one in told[2:]] == [texts[0] for texts in model.led.write(alone, 2, 0)]
    other = model.forecast(scene, samples=2, seed=1)
    assert not {one.text for one in told} & {one.text for one in other.sentences}
    plain = replace(model, led=None).forecast(scene, samples=2)
    assert plain.sentences == [] and np.abs(plain.members - forecast.members).max() > 1e-4
    with rasterio.open(forecast.save(scene.with_name("f.tif"))) as file:
        assert file.tags()["CAPTIONS"] == "written" and len(file.tags()["WRITER"]) == 12
        assert {"TEMPERATURE", "TOP_P"} <= set(file.tags())


def test_a_dataset_has_them_by_tile_and_member(model: Model) -> None:
    cube = xarray.DataArray(
        image(64, 112)[None], dims=("year", "band", "y", "x"),
        coords={"year": [2021], "band": ["red", "green", "blue"]},
    )  # fmt: skip
    made = model.forecast(cube, samples=2)
    assert made["sentence"].dims == ("tile", "member") and made["sentence"].shape == (2, 2)
    assert made["tile_x"].values.tolist() == [0, 48] and made["tile_y"].values.tolist() == [0, 0]
    assert len(set(made["sentence"].values.flatten().tolist())) == 4


def test_one_is_led_by_what_is_given_or_by_what_is_written(model: Model, scene: Path) -> None:
    with pytest.raises(ForecastError, match="semantic caption is given, and each member"):
        model.forecast(scene, samples=1, captions={"semantic": "Forest."})
    with_layout = model.forecast(scene, samples=1, captions={"geometric": "No parcels."})
    without = model.forecast(scene, samples=1)
    assert with_layout.sentences == without.sentences
    assert np.abs(with_layout.mean - without.mean).max() > 1e-4


def forecast(scene: Path, folder: Path, *more: object) -> tuple[int, str]:
    words = [scene, "--checkpoint", folder, "--written", "--samples", 1, "--steps", 1, *more]
    result = CliRunner().invoke(cli.app, ["forecast", *map(str, words)])
    return result.exit_code, result.output


def test_the_command_writes_them_beside_the_forecast(folder: Path, scene: Path) -> None:
    out = scene.with_name("o.tif")
    code, output = forecast(scene, folder, "--out", out, "--no-picture")
    assert code == 0 and "each member led by a sentence of its own" in output
    assert "is in o.sentences.csv" in output
    assert [one.member for one in read_sentences(out.with_suffix(".sentences.csv"))] == [1, 1]


def test_a_model_without_a_writer_is_one_line(folder: Path, scene: Path, tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.mkdir()
    for file in folder.iterdir():
        if file.name != NAME:
            (silent / file.name).symlink_to(file)
    code, output = forecast(scene, silent, "--out", tmp_path / "o.tif")
    assert code == 2 and not (tmp_path / "o.tif").exists()
    (line,) = [line for line in output.splitlines() if "writer" in line]
    assert line.startswith("error: no writer.safetensors with") and "dvc repro writer" in line
