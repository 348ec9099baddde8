"""The example scene that is shipped: three years of one test region of the demo world, and the
year after them to compare a forecast with.

    python -m satjepa.demo.example assets/example

    <out>/<Region>/s2_rgb_<Region>_<YEAR>_10km.tif          what to forecast from
    <out>/<Region>/truth/s2_rgb_<Region>_<YEAR + 1>_10km.tif

No model is trained on a test region. The pixels are those of the `data` stage, cut to a window.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from satjepa.demo.render import read_recipe, write_world
from satjepa.paths import replaced, root

RECIPE = "assets/demo/world.yaml"
SHIPPED = "assets/example"
PRESET = "strong"
REGION = "Brannoch"  # a test region: fields, woods, a town, a river, a reservoir that fills
YEARS = (2020, 2021, 2022)
TRUTH = 2023
CORNER = (40, 40)  # first row and column of the window, pixels of the region
SIDE = 192  # pixels: 16 overlapping tiles of the demo model


def shipped_scene() -> tuple[list[Path], Path]:
    """The images of the shipped example scene, oldest first, and the one of the year after.

    Raises FileNotFoundError where they are not there.
    """
    folder = root() / SHIPPED / REGION
    images = sorted(folder.glob("*.tif"))
    truths = sorted((folder / "truth").glob("*.tif"))
    if not (images and truths):
        raise FileNotFoundError(
            f"no example scene in {folder}: restore it (git checkout {SHIPPED}), or make it again "
            f"(python -m satjepa.demo.example {SHIPPED})"
        )
    return images, truths[0]


def write_example(out: str | Path, recipe: str | Path | None = None) -> list[Path]:
    """Write the example scene below `out`; returns its files, oldest first, the truth last.

    recipe: the demo world's, default `assets/demo/world.yaml`. Equal recipes give equal pixels.
    Takes seconds: the whole region is simulated from its first year.
    """
    world = read_recipe(Path(recipe or root() / RECIPE))
    folder = Path(out) / REGION
    with tempfile.TemporaryDirectory() as scratch:
        write_world(_only_region(world), Path(scratch), progress=False)
        scenes = Path(scratch) / PRESET / REGION
        names = [f"s2_rgb_{REGION}_{year}_10km.tif" for year in (*YEARS, TRUTH)]
        files = [folder / name for name in names[:-1]] + [folder / "truth" / names[-1]]
        for file, name in zip(files, names, strict=True):
            _cut(scenes / name, file)
    return files


def _only_region(world: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a world of one region, up to the year of the truth."""
    preset = world["presets"][PRESET] | {"parts": ["test"]}
    years = [year for year in world["years"] if year <= TRUTH]
    return world | {"presets": {PRESET: preset}, "regions": {"test": [REGION]}, "years": years}


def _cut(source: Path, out: Path) -> None:
    """Write the window of a raster as a raster of its own, georeferenced, compressed."""
    import rasterio
    from affine import Affine
    from rasterio.windows import Window

    row, column = CORNER
    window = Window(column, row, SIDE, SIDE)
    with rasterio.open(source) as src:
        pixels = src.read(window=window)
        profile = {
            "driver": "GTiff",
            "dtype": src.dtypes[0],
            "count": src.count,
            "height": SIDE,
            "width": SIDE,
            "crs": src.crs,
            "transform": src.transform @ Affine.translation(column, row),
        }
    profile |= {"compress": "deflate", "predictor": 2, "zlevel": 9}
    with replaced(out) as part, rasterio.open(part, "w", **profile) as dst:
        dst.write(pixels)


if __name__ == "__main__":
    for path in write_example(sys.argv[1]):
        print(path)
