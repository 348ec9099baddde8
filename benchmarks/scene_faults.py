"""A forecast that is killed at random moments, and images that are damaged at random: how often the
next run ends with the same bytes, and what damaged images lead to.

    python benchmarks/scene_faults.py --kills 20 --damages 100

With a stub model on a small scene. Prints JSON; exits with 1 where a file differed, an error was
not one of ours, or anything was left under the name of the output.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rasterio import Affine

from satjepa.data.errors import SceneError
from satjepa.data.stack import ForecastError
from satjepa.forecast import forecast_raster
from satjepa.models.flow import patch_noise

HOW = {"patch": 32, "samples": 2, "batch": 2, "tags": {"MODEL": "stub"}, "log": lambda line: None}


class Slow:
    """Grey plus the noise of the scene; takes a moment for each batch."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        """(samples,B,3,H,W)"""
        time.sleep(self.pause)
        shape = batch["rgb_t"].shape[1:]
        noise = [patch_noise(batch["meta"], s, seed, shape) for s in range(samples)]
        return (0.5 * batch["rgb_t"] + 0.05 * torch.stack(noise)).clamp(0, 1)


def make_image(path: Path, height: int = 150, width: int = 50) -> bytes:
    """A compressed image of land; returns its bytes."""
    import rasterio

    data = np.random.default_rng(0).integers(30, 220, (3, height, width)).astype(np.uint8)
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 300000, 0, -10, 5000000)}
    with rasterio.open(path, "w", **profile, compress="deflate") as dst:
        dst.write(data)
    return path.read_bytes()


def kill(image: Path, out: Path, after: float) -> bool:
    """Forecast in a process that is killed after some seconds; was it before the end?"""
    child = os.fork()
    if child == 0:
        forecast_raster(image, out, Slow(0.02), **HOW)
        os._exit(0)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kills(folder: Path, count: int) -> dict[str, int]:
    """Kill as many runs at random moments, each going on until one ends by itself."""
    image = folder / "a_2019.tif"
    make_image(image)
    started = time.perf_counter()
    whole = forecast_raster(image, folder / "whole.tif", Slow(0.02), **HOW).read_bytes()
    span = time.perf_counter() - started
    rng = np.random.default_rng(1)
    found: Counter = Counter()
    for _ in range(count):
        out = folder / "out" / "o.tif"
        found["killed"] += kill(image, out, rng.uniform(0, span))
        found["there after the kill, and other bytes"] += out.exists() and out.read_bytes() != whole
        found["equal"] += forecast_raster(image, out, Slow(), **HOW).read_bytes() == whole
        left = [path.name for path in out.parent.iterdir()]
        found["something else left"] += left != ["o.tif"]
        out.unlink()
    return dict(found)


def damages(folder: Path, count: int) -> dict[str, int]:
    """Cut off or change bytes of an image as many times, and forecast it."""
    image = folder / "b_2019.tif"
    good = make_image(image)
    found: Counter = Counter()
    for number in range(count):
        rng = np.random.default_rng(number)
        bad = bytearray(good[: rng.integers(8, len(good))] if number % 3 == 0 else good)
        for place in rng.integers(0, len(bad), rng.integers(1, 9)):
            bad[place] ^= int(rng.integers(1, 256))
        image.write_bytes(bad)
        out = folder / "damaged" / "o.tif"
        try:
            forecast_raster(image, out, Slow(), **HOW)
            found["a whole forecast"] += 1
            out.unlink()
        except (SceneError, ForecastError, OSError) as error:
            found[type(error).__name__] += 1
        except Exception as error:
            found[f"crash: {type(error).__name__}: {error}"] += 1
        if out.parent.exists() and list(out.parent.iterdir()):
            found["something left"] += 1
    return dict(found)


def main() -> None:
    """Run both, print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--damages", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = {"kills": kills(Path(name), args.kills)}
        found["damages"] = damages(Path(name), args.damages)
    print(json.dumps(found, indent=1))
    bad = found["kills"]["equal"] != args.kills or found["kills"]["something else left"]
    bad = bad or any("crash" in key or "left" in key for key in found["damages"])
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
