"""GeoTIFFs of one region -> one chunked xarray/Zarr cube with mask, CRS and transform."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.alphaearth import BANDS, MASKED, read_alphaearth
from satjepa.data.display import is_display
from satjepa.data.errors import CorruptRasterError
from satjepa.data.grid import Grid, upright
from satjepa.data.rasters import facts, read_rgb, read_uint8
from satjepa.data.scenes import TRUTH_BANDS, Scene, common_grid, truth_file

if TYPE_CHECKING:
    import xarray as xr

CHUNK = 256  # pixels; a chunk holds all bands of one year


def build_cube(
    scenes: Sequence[Scene], out: str | Path, preset: str | None = None, white: float = 1.0
) -> xr.Dataset:
    """Write the cube of one region to `out` (a .zarr folder, replaced at once and only when
    complete) and open it.

    Variables: rgb (year, band, y, x), display scale: uint8 where every source is uint8 (255 = 1.0),
    else float32; valid (year, y, x) bool; emb (year, emb_band, y, x) int8 AlphaEarth codes, -128
    where masked and in years without a file, only if any year has one; oracle_mean, oracle_sample
    (year, band, y, x), process (year, y, x) uint8 and has_truth (year) bool where any year has
    truth (0 in the years without).
    The first row is the north, the last column the east of the map, whatever the order of the
    files' rows and columns: words on an image, such as its caption, hold on the map.
    Coordinates: year; y and x, the pixel centres, on a grid that is not rotated.
    Attributes: region, preset (default: the name of the folder that holds `out`), crs, transform
    (a, b, c, d, e, f).

    white: value in [0, 1] that becomes 1, in images that are not uint8; what is brighter is
    clipped.

    Years are as found: a missing one stays missing. Raises SceneError (everything `find_scenes`
    checks) and ValueError for scenes of several regions or a doubled year; then `out` is left as it
    was.
    """
    import xarray as xr

    out = Path(out).absolute()
    scenes = sorted(scenes, key=lambda scene: scene.year)
    years = [scene.year for scene in scenes]
    if len({scene.region for scene in scenes}) != 1 or len(set(years)) != len(years):
        raise ValueError(
            "a cube wants one scene a year of one region, got "
            f"{[(s.region, s.year) for s in scenes]}"
        )
    grid = common_grid(scenes)
    variables = _rgb(scenes, grid, white) | _embeddings(scenes, grid) | _truth(scenes, grid)
    for name, (dims, values) in variables.items():
        if dims[-2:] == ("y", "x"):
            variables[name] = (dims, upright(values, grid.turn))
    grid = grid.turned()
    attrs = {"region": scenes[0].region, "preset": out.parent.name if preset is None else preset}
    attrs |= {"crs": grid.crs, "transform": list(grid.transform)}
    _write(xr.Dataset(variables, {"year": years} | _centres(grid), attrs), out)
    return open_cube(out)


def cube_paths(folder: str | Path) -> list[Path]:
    """The cubes of a folder in the order of their names; hidden files, such as those that macOS
    lays beside others, are none.
    """
    return sorted(Path(folder).glob("[!.]*.zarr"))


def open_cube(path: str | Path) -> xr.Dataset:
    """Open a cube lazily: values are read when first used, then kept.

    Raises FileNotFoundError if it is not there, CorruptRasterError where chunk files are lost (Zarr
    would read zeros).
    """
    import xarray as xr
    import zarr

    if not (Path(path) / "zarr.json").exists():
        raise FileNotFoundError(
            f"{path}: no cube here; build it with build_cube or the DVC stage that makes the cubes"
        )
    with warnings.catch_warnings():  # of hidden files that macOS and others leave in the folder
        warnings.filterwarnings("ignore", r"Object at \..* is not recognized", category=UserWarning)
        for name, array in zarr.open_group(path, mode="r").arrays():
            if array.nchunks_initialized != array.nchunks:
                found = f"{array.nchunks_initialized} of {array.nchunks} chunks of {name}"
                raise CorruptRasterError(path, found, "all chunks", "build the cube again")
        return xr.open_zarr(path, chunks=None, consolidated=False)


def _rgb(scenes: Sequence[Scene], grid: Grid, white: float) -> dict[str, tuple]:
    kinds = set()
    for scene in scenes:
        stored = facts(scene.rgb, 3)
        kinds.add((stored.dtype, stored.scale, stored.offset))
    as_uint8 = kinds == {("uint8", 1.0, 0.0)}
    rgb = np.zeros((len(scenes), 3, grid.height, grid.width), np.uint8 if as_uint8 else np.float32)
    valid = np.zeros((len(scenes), grid.height, grid.width), bool)
    for i, scene in enumerate(scenes):
        values, valid[i] = read_rgb(scene.rgb)
        values = values if is_display(scene.rgb) else np.minimum(values / np.float32(white), 1)
        rgb[i] = np.rint(values * 255) if as_uint8 else values
    return {"rgb": (("year", "band", "y", "x"), rgb), "valid": (("year", "y", "x"), valid)}


def _embeddings(scenes: Sequence[Scene], grid: Grid) -> dict[str, tuple]:
    if not any(scene.emb for scene in scenes):
        return {}
    emb = np.full((len(scenes), BANDS, grid.height, grid.width), MASKED, np.int8)
    for i, scene in enumerate(scenes):
        if scene.emb:
            emb[i] = read_alphaearth(scene.emb)
    return {"emb": (("year", "emb_band", "y", "x"), emb)}


def _truth(scenes: Sequence[Scene], grid: Grid) -> dict[str, tuple]:
    has = np.array([scene.truth is not None for scene in scenes])
    variables: dict[str, tuple] = {"has_truth": (("year",), has)} if has.any() else {}
    for layer, bands in TRUTH_BANDS.items() if has.any() else ():
        values = np.zeros((len(scenes), bands, grid.height, grid.width), np.uint8)
        for i in np.flatnonzero(has):
            values[i] = read_uint8(truth_file(scenes[i], layer), bands)
        dims = ("year", "band", "y", "x") if bands == 3 else ("year", "y", "x")
        variables[layer] = (dims, values if bands == 3 else values[:, 0])
    return variables


def _centres(grid: Grid) -> dict[str, np.ndarray]:
    a, b, c, d, e, f = grid.transform
    if b or d:
        return {}
    return {"y": f + e * (np.arange(grid.height) + 0.5), "x": c + a * (np.arange(grid.width) + 0.5)}


def _write(cube: xr.Dataset, out: Path) -> None:
    """Write beside `out`, then rename: a reader sees the old cube or the new one, never a part."""
    part, old = (out.with_name(f".{out.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    chunks = {"year": 1, "y": CHUNK, "x": CHUNK}
    encoding = {}
    for name, variable in cube.variables.items():
        size = [min(n, chunks.get(dim, n)) for dim, n in variable.sizes.items()]
        # an all-zero chunk is written like any other, and no number is set apart as missing
        encoding[name] = {"chunks": size, "write_empty_chunks": True, "_FillValue": None}
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        cube.to_zarr(part, mode="w", encoding=encoding, zarr_format=3, consolidated=False)
        if out.exists():
            out.rename(old)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
