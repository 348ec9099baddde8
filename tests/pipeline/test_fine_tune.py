"""Fine-tuning on a place: which years are trained on, what comes of it, and that it goes on."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from tiny_run import SIDE, TEXT, build, make_backbone, tiny
from typer.testing import CliRunner

from satjepa import cli
from satjepa.pipeline import fine_tune as module
from satjepa.pipeline.fine_tune import How, fine_tune, start_from
from satjepa.pipeline.place import PlaceError, find_place, samples_of
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.export import export
from satjepa.training.run import Interrupted

YEARS = (2016, 2017, 2018, 2019)
quiet = {"log": lambda line: None, "progress": False}


class Encoders:
    """Stands in for text encoders: a text's length is all there is."""

    def fingerprint(self) -> str:
        return "stand-in"

    def encode(self, texts: list[str], length: int, batch: int) -> list:
        return [(torch.full((4, TEXT), len(t) / 300), torch.ones(128)) for t in texts]


def scene(folder: Path, year: int, dtype: str = "uint8", seed: int = 0, side: int = SIDE) -> Path:
    rgb = np.random.default_rng([year, seed]).random((3, side, side))
    data = (60 + 150 * rgb).astype(dtype) if dtype == "uint8" else (0.3 * rgb).astype(dtype)
    path = folder / f"s2_rgb_{folder.name}_{year}_10km.tif"
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"count": 3, "height": side, "width": side, "dtype": dtype}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 3e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as dst:
        dst.write(data)
    return path


def region(folder: Path, years: tuple = YEARS, **how: object) -> Path:
    for year in years:
        scene(folder, year, **how)
    return folder


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


@pytest.fixture(scope="module")
def source(backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run's checkpoint, and its averages alone, that `fine_tune` can build the model of."""
    home = tmp_path_factory.mktemp("source")
    model = build(backbone, tiny())
    model.average_weights(0.9)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05
    frozen = provenance.hash_module(model.backbone, frozen_only=True)
    header = provenance.make_header(tiny().as_dict(), "s", frozen)
    checkpoint.save(home / "run/model", model.state(), header, {"step": 6}, {})
    export(home / "run", home / "shipped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "build_model", lambda params: build(backbone, params))
        patch.setattr(module, "load_text_encoders", lambda params: Encoders())
        yield home / "shipped"


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two steps on the scenes of `Wood` make of it."""
    home = tmp_path_factory.mktemp("tuned")
    return fine_tune(source, region(home / "Wood"), home / "out", How(2, 0.5), **quiet)


def is_same(one: Path, other: Path) -> bool:
    """Whether two checkpoints hold the same weights."""
    tensors = checkpoint.load(one).tensors
    others = checkpoint.load(other).tensors
    return all(tensors[name].equal(tensor) for name, tensor in others.items())


# ------------------------------------------------------------------ which years


def test_the_last_pair_is_held_back_and_gaps_are_no_pairs(tmp_path: Path) -> None:
    years = (2009, 2010, 2012, 2014, 2015, 2016, 2017)
    folder = region(tmp_path / "Lakes", years)
    assert find_place(folder).years() == {"Lakes": [2009, 2010, 2012, 2014, 2015, 2016]}
    assert find_place(tmp_path, until=2010).years() == {"Lakes": [2009, 2010]}
    assert find_place(tmp_path, until=2030).years() == {"Lakes": list(years)}
    region(tmp_path / "Ends", (2015, 2016, 2017, 2019))
    assert find_place(tmp_path).years()["Ends"] == [2015, 2016]


def test_a_region_without_a_pair_is_left_out_or_an_error(tmp_path: Path) -> None:
    region(tmp_path / "Short", (2018, 2019))
    with pytest.raises(PlaceError, match=r"Short: .*2018 and 2019, is held back.*--until 2019"):
        find_place(tmp_path)
    region(tmp_path / "Gaps", (2015, 2017))
    region(tmp_path / "Whole")
    place = find_place(tmp_path)
    assert list(place.regions) == ["Whole"] and sorted(place.left_out) == ["Gaps", "Short"]
    assert "Gaps is left out: of 2015, 2017 no two years follow each other" in str(place)


def test_white_is_that_of_the_images(tmp_path: Path) -> None:
    region(tmp_path / "Display")
    assert find_place(tmp_path).white is None
    region(tmp_path / "Dark", dtype="float32")
    assert find_place(tmp_path).white == 0.3558
    assert find_place(tmp_path, trained_white=0.5).white == 0.5
    assert find_place(tmp_path, white=0.2, trained_white=0.5).white == 0.2
    for path in region(tmp_path / "Bright", dtype="float32").iterdir():
        with rasterio.open(path, "r+") as dst:
            dst.write(dst.read() * 3)
    with pytest.raises(PlaceError, match=r"white differs between regions.*--white"):
        find_place(tmp_path)


# ------------------------------------------------------------------ training


def test_it_makes_a_checkpoint_that_says_where_it_comes_from(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    before = checkpoint.load(source)
    found = checkpoint.load(tuned)
    origin = found.header["origin"]
    assert tuned.name == "model" and found.state["step"] == 2
    assert origin["model"] == before.state["sha256"][checkpoint.MODEL]
    assert (origin["model_steps"], origin["steps"], origin["rate"]) == (6, 2, 0.5)
    assert origin["years"] == {"Wood": [2016, 2017, 2018]}
    assert found.header["config"]["train"]["lr"] == pytest.approx(0.5 * tiny().train.lr)
    assert sorted(found.tensors) == sorted(before.tensors)
    moved = [name for name, t in found.tensors.items() if not t.equal(before.tensors[name])]
    assert len(moved) > len(before.tensors) / 2
    again = fine_tune(tuned, region(tmp_path / "Wood"), tmp_path / "again", How(1), **quiet)
    assert checkpoint.load(again).header["origin"]["origin"] == origin


def test_what_is_held_back_is_not_trained_on(source: Path, tuned: Path, tmp_path: Path) -> None:
    folder = region(tmp_path / "Wood")
    scene(folder, 2019, seed=9)
    assert is_same(fine_tune(source, folder, tmp_path / "b", How(2, 0.5), **quiet), tuned)
    scene(folder, 2018, seed=9)
    assert not is_same(fine_tune(source, folder, tmp_path / "c", How(2, 0.5), **quiet), tuned)


def test_it_begins_with_the_averaged_weights(source: Path, backbone) -> None:
    averaged = checkpoint.load(source)
    for folder in (source, source.parent / "run/model"):
        model = start_from(checkpoint.load(folder), tiny())
        own = {name: p for name, p in model.named_parameters() if p.requires_grad}
        assert sorted(own) == sorted(averaged.tensors)
        assert all(torch.equal(p, averaged.tensors[name]) for name, p in own.items())
        assert not any(name.startswith("average.") for name in model.state())
        assert any(name.startswith("target_encoder.") for name in model.state())


def test_each_pair_is_shown_both_ways(backbone, tmp_path: Path) -> None:
    place = find_place(region(tmp_path / "Wood"))
    how = (place, tiny(), backbone, Encoders(), tmp_path / "out", quiet["log"], False)
    data = samples_of(*how, both_ways=True)
    assert len(data) == 2 * len(samples_of(*how)) == 4
    early, late, back, far_back = (data[i] for i in range(4))
    assert (early["meta"]["year"], late["meta"]["year"]) == (2016, 2017)
    assert torch.equal(back["rgb_t"], late["rgb_tp1"]) and torch.equal(
        back["rgb_tp1"], late["rgb_t"]
    )
    assert torch.equal(far_back["rgb_tp1"], early["rgb_t"])
    assert torch.equal(far_back["history"][0], late["rgb_tp1"]) and far_back["history_valid"][0]
    assert torch.equal(back["latent_tp1"], early["latent_tp1"])
    assert not torch.equal(far_back["latent_tp1"], early["latent_tp1"])
    assert torch.equal(back["text_tp1"]["hidden"], late["text_t"]["hidden"])


def test_interrupted_it_goes_on_and_finished_it_stays(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    folder = region(tmp_path / "Wood")
    call = (source, folder, tmp_path / "out", How(2, 0.5))
    with pytest.raises(Interrupted, match="after step 1 of 2"):
        fine_tune(*call, max_seconds=0, **quiet)
    assert not checkpoint.exists(tmp_path / "out/model")
    shutil.copytree(tmp_path / "out", tmp_path / "other")
    assert is_same(done := fine_tune(*call, **quiet), tuned)
    log = (tmp_path / "out/run/speed.csv").read_text()
    assert fine_tune(*call, **quiet) == done and is_same(done, tuned)
    assert (tmp_path / "out/run/speed.csv").read_text() == log
    scene(folder, 2017, seed=5)
    with pytest.raises(CheckpointError, match="another run"):
        fine_tune(source, folder, tmp_path / "other", How(2, 0.5), **quiet)


def test_what_cannot_be_is_one_clear_error(source: Path, tmp_path: Path) -> None:
    small = region(tmp_path / "Small", side=SIDE - 1)
    with pytest.raises(PlaceError, match=r"Small: 31x31 pixels, less than one patch"):
        fine_tune(source, small, tmp_path / "out", **quiet)
    with pytest.raises(CheckpointError, match=r"not fine-tuned, and would be written over"):
        fine_tune(source, small, source.parent / "run", **quiet)
    found = checkpoint.load(source)
    config = json.loads(json.dumps(found.header["config"]))
    config["model"]["variant"] = "published"
    header = found.header | {"config": config}
    checkpoint.save(tmp_path / "other", found.tensors, header, {"step": 1}, None)
    with pytest.raises(CheckpointError, match="published variant"):
        fine_tune(tmp_path / "other", small, tmp_path / "out", **quiet)


def test_the_command_passes_on_what_it_is_told(monkeypatch, tmp_path: Path) -> None:
    calls = []

    def record(*given: object, **more: object) -> Path:
        more.pop("log")
        calls.append((given, more))
        return Path("done")

    monkeypatch.setattr(module, "fine_tune", record)
    words = "train --from a --data b --out c --steps 7 --rate 0.2 --until 2018 --minutes 2 --seed 3"
    words += " --one-way"
    result = CliRunner().invoke(cli.app, words.split())
    assert "forecast with it: --checkpoint done" in result.output, result.output
    more = {"until": 2018, "white": None, "resume": "auto", "max_seconds": 120}
    assert calls == [((Path("a"), Path("b"), Path("c"), How(7, 0.2, 3, False)), more)]
    CliRunner().invoke(cli.app, ["train", "--from", "a", "--data", "b"])
    assert calls[1][0] == (Path("a"), Path("b"), Path("runs/place"), How())
    for odd in (["--from", "a"], ["--data", "b"], ["--steps", "3"], ["--one-way"]):
        result = CliRunner().invoke(cli.app, ["train", *odd])
        assert result.exit_code == 2 and "--from and --data go together" in result.output
