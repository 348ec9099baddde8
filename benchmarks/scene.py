"""What a large scene takes to forecast: peak memory and time of the rows and of the
Cloud-Optimized GeoTIFF, with a stub model, so that all of it is reading, blending and writing.

    python benchmarks/scene.py --side 10000 --years 3 --out DIR
    python benchmarks/scene.py --height 20000 --width 1000 --years 1 --out DIR

DIR needs about 15 GB for 10,000 px a side; the scene is made there first, and stays for a further
run. Peak memory is that of the process, with Python and PyTorch in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from rasterio import Affine

YEARS = (2020, 2021, 2022)
BLOCK = 512


class Shaded:
    """Stands in for a model: the last image, each member a shade darker than the one before."""

    def forecast(self, batch: dict, samples: int, seed: int) -> torch.Tensor:
        """(samples,B,3,H,W)"""
        shade = 0.01 * torch.arange(samples)[:, None, None, None, None]
        return (batch["rgb_t"] - shade).clamp(0, 1)


def make_scene(folder: Path, height: int, width: int, years: int) -> list[Path]:
    """Images of reflectance, uint16 in tiles, with a hole where nothing was seen in each."""
    import rasterio

    folder.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint16"}
    profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(10, 0, 300000, 0, -10, 5000000)}
    profile |= {"nodata": 0, "zlevel": 1}
    paths = []
    for year in YEARS[-years:]:
        path = folder / f"s2_rgb_big{height}x{width}_{year}_10km.tif"
        paths.append(path)
        if path.exists():
            continue
        rng = np.random.default_rng(year)
        part = path.with_suffix(".part")
        with rasterio.open(part, "w", **profile) as dst:
            for _, window in dst.block_windows(1):
                land = rng.integers(400, 2600, (3, 1, 1)) + rng.integers(
                    0, 300, (3, window.height, window.width)
                )
                land[:, 100:140, 100:180] = 0
                dst.write(land.astype(np.uint16), window=window)
        part.rename(path)
    return paths


def peak() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(paths: list[Path], out: Path, patch: int, samples: int) -> dict[str, float]:
    """Forecast a scene into a Cloud-Optimized GeoTIFF: seconds and peak memory of each step."""
    from satjepa.forecast import Settings, check_files, forecasting

    found = {"start_mib": peak()}
    begun = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal begun
        now = time.perf_counter()
        found[f"{name}_s"] = round(now - begun, 1)
        found[f"{name}_mib"] = round(peak())
        begun = now

    request = check_files(paths, out)
    lap("look")
    settings = Settings(patch=patch, history=len(paths) - 1, samples=samples)
    with forecasting(request, Shaded(), settings, out, print) as made:
        lap("rows")
        made.write(out, cloud=True)
        lap("cog")
    found["cog_size_mib"] = round(out.stat().st_size / 2**20)
    return found


def main() -> None:
    """Measure, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=10000)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--years", type=int, default=1)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    size = (args.height or args.side, args.width or args.side)
    paths = make_scene(args.out / "scene", *size, args.years)
    begun = {"height": size[0], "width": size[1], "years": args.years, "samples": args.samples}
    print(json.dumps(begun | measure(paths, args.out / "forecast.tif", args.patch, args.samples)))


if __name__ == "__main__":
    main()
