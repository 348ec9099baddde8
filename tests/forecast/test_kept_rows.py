"""A run that stops: what it leaves, and that the next one goes on from there, bit for bit."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from forecast_files import Noise, image, quiet, write

from satjepa.data.errors import SceneError
from satjepa.data.share import Share
from satjepa.data.stack import ForecastError
from satjepa.forecast import Settings, check_files, forecast_raster, forecasting

HOW = {"patch": 32, "samples": 2, "batch": 2, "tags": {"MODEL": "m"}} | quiet


class Counts(Noise):
    """Noise that counts its batches, is slow if asked, and stops after `last`."""

    def __init__(self, last: int = 10**6, stop: type = KeyboardInterrupt, pause: float = 0) -> None:
        self.count = 0
        self.last = last
        self.stop = stop
        self.pause = pause

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        time.sleep(self.pause)
        if self.count == self.last:
            raise self.stop("stopped")
        self.count += 1
        return super().forecast(batch, samples, seed)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return write(tmp_path / "in/a_2019.tif", image(150, 50))


@pytest.fixture
def whole(path: Path, tmp_path: Path) -> tuple[bytes, int]:
    """The file of a run that was not stopped, and its number of batches."""
    counts = Counts()
    return forecast_raster(path, tmp_path / "whole.tif", counts, **HOW).read_bytes(), counts.count


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_what_is_done_is_not_done_again(
    path: Path, whole: tuple[bytes, int], tmp_path: Path, stop: type
) -> None:
    out = tmp_path / "out/o.tif"
    with pytest.raises(stop):
        forecast_raster(path, out, Counts(last=5, stop=stop), **HOW)
    assert not out.exists()
    (rows,) = out.parent.iterdir()
    assert rows.name.startswith(".o.tif.") and rows.suffix == ".rows"
    lines = []
    second = Counts()
    forecast_raster(path, out, second, **HOW | {"log": lines.append})
    content, batches = whole
    assert out.read_bytes() == content and second.count < batches
    assert any(line.startswith("going on: ") for line in lines)
    assert [file.name for file in out.parent.iterdir()] == ["o.tif"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"tags": {"MODEL": "n"}}, {"white": 0.9}, "image"])
def test_other_settings_or_images_start_anew(
    path: Path, whole: tuple[bytes, int], tmp_path: Path, change: dict | str
) -> None:
    out = tmp_path / "out/o.tif"
    with pytest.raises(KeyboardInterrupt):
        forecast_raster(path, out, Counts(last=5), **HOW)
    if change == "image":
        write(path, image(150, 50)[::-1])
        change = {}
    again = Counts()
    forecast_raster(path, out, again, **HOW | change)
    assert again.count == whole[1]
    assert [file.name for file in out.parent.iterdir()] == ["o.tif"]


def test_rows_of_a_model_without_a_name_are_not_trusted(
    path: Path, whole: tuple[bytes, int], tmp_path: Path
) -> None:
    nameless = HOW | {"tags": None}
    with pytest.raises(KeyboardInterrupt):
        forecast_raster(path, tmp_path / "o.tif", Counts(last=5), **nameless)
    again = Counts()
    forecast_raster(path, tmp_path / "o.tif", again, **nameless)
    assert again.count == whole[1]


def test_a_damaged_row_is_made_again(path: Path, whole: tuple[bytes, int], tmp_path: Path) -> None:
    out = tmp_path / "out/o.tif"
    with pytest.raises(KeyboardInterrupt):
        forecast_raster(path, out, Counts(last=5), **HOW)
    for number, rows in enumerate(sorted(out.parent.glob(".*.rows/*.npz"))):
        content = bytearray(rows.read_bytes())
        content[len(content) // 2] ^= 255
        rows.write_bytes(content if number else content[:100])
    assert forecast_raster(path, out, Counts(), **HOW).read_bytes() == whole[0]


@pytest.mark.parametrize("bands", [2, 4])
def test_killed_it_goes_on_bit_for_bit(
    path: Path, whole: tuple[bytes, int], tmp_path: Path, bands: int
) -> None:
    out = tmp_path / "out/o.tif"
    child = os.fork()
    if child == 0:
        forecast_raster(path, out, Counts(pause=0.05), **HOW)
        os._exit(0)
    deadline = time.monotonic() + 60
    while len(list(out.parent.glob(".*.rows/*.npz"))) < bands and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not out.exists()
    again = Counts()
    assert forecast_raster(path, out, again, **HOW).read_bytes() == whole[0]
    assert again.count < whole[1]
    assert [file.name for file in out.parent.iterdir()] == ["o.tif"]


@dataclass(frozen=True)
class Meeting(Share):
    """A process that is a thread."""

    barrier: Barrier | None = None

    def wait(self) -> None:
        self.barrier.wait(60)


def test_two_processes_make_the_rows_of_one(
    path: Path, whole: tuple[bytes, int], tmp_path: Path
) -> None:
    out = tmp_path / "out/o.tif"
    request = check_files([path], out)
    settings = Settings(**{k: v for k, v in HOW.items() if k != "log"})
    barrier = Barrier(2)
    counts = [Counts(), Counts()]

    def work(rank: int) -> None:
        share = Meeting(rank, 2, barrier)
        with forecasting(request, counts[rank], settings, out, HOW["log"], share) as made:
            if rank == 0:
                made.write(out)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    assert out.read_bytes() == whole[0]
    assert all(0 < count.count < whole[1] for count in counts)
    assert [file.name for file in out.parent.iterdir()] == ["o.tif"]


def test_damaged_images_are_an_error_or_a_whole_forecast(tmp_path: Path) -> None:
    good = write(tmp_path / "g_2019.tif", image(150, 50), compress="deflate").read_bytes()
    (tmp_path / "out").mkdir()
    refused = 0
    for number in range(12):
        rng = np.random.default_rng(number)
        bad = bytearray(good[: rng.integers(8, len(good))] if number % 3 == 0 else good)
        for place in rng.integers(0, len(bad), 3):
            bad[place] ^= int(rng.integers(1, 256))
        path = tmp_path / "b_2019.tif"
        path.write_bytes(bad)
        out = tmp_path / "out/o.tif"
        try:
            forecast_raster(path, out, Noise(), **HOW)
        except (SceneError, ForecastError, OSError):
            refused += 1
            assert list(out.parent.iterdir()) == []
        else:
            out.unlink()
    assert refused >= 6
