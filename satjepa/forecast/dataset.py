"""xarray in, xarray out: the forecast of a Dataset or DataArray, on its grid and in its units.

    import satjepa, xarray

    cube = xarray.open_dataset("place.nc")               # red, green, blue (time, y, x)
    forecast = satjepa.load().forecast(cube, samples=8)  # mean, spread, members

The images are written as GeoTIFFs into a scratch folder and forecast from there: what holds for
files holds here, bit by bit.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.errors import SceneError
from satjepa.data.rasters import rgb_scale, without_remark
from satjepa.data.stack import ForecastError, whites_of
from satjepa.forecast.labelled import (
    COLOURS,
    Meaning,
    crs_of,
    images_of,
    mapping_of,
    meaning,
    space_of,
    times_of,
    transform_of,
    year_in,
)
from satjepa.forecast.led import by_tile
from satjepa.paths import replaced

if TYPE_CHECKING:
    import xarray as xr

MAPPING = "spatial_ref"
LONG_NAMES = {
    "mean": "forecast, mean over the members",
    "spread": "forecast, standard deviation over the members",
    "members": "forecast, members of the ensemble",
}


def is_labelled(images: Sequence[Any]) -> bool:
    """Whether what is to be forecast is one xarray Dataset or DataArray."""
    return len(images) == 1 and all(hasattr(images[0], name) for name in ("dims", "coords"))


def forecast_dataset(
    model: Any,
    data: xr.Dataset | xr.DataArray,
    *,
    years: Sequence[int] | None = None,
    white: float | None = None,
    **settings: Any,
) -> xr.Dataset:
    """Forecast the year after the last of the images in `data`.

    model: of `satjepa.load`. data: dims (time or year, band, y, x), or variables red, green and
    blue (time, y, x); a lone image needs no time. Bands are taken by name where they have names;
    whole numbers with or without scale and offset, floats in [0, 1]; NaN and the fill value are
    holes. CRS and place as `satjepa.forecast.labelled` reads them.
    years, white, settings: as `Model.forecast` has them.

    Returns mean and spread (band, y, x) and members (member, band, y, x), float32, in the units of
    `data` (with the same scale_factor and add_offset, where its numbers are as stored), NaN where
    the last image has a hole; its coordinates; the time of the forecast; `spatial_ref` with
    crs_wkt and GeoTransform; and, as attributes, the settings. Where captions were written, also
    `sentence` (tile, member), and tile_x and tile_y (tile), the first column and row of each tile
    in the scene, north up. All members stay in memory.

    Raises ForecastError for what cannot be forecast as asked.
    """
    array = images_of(data)
    name, times = times_of(array)
    known = _years(times, years)
    order = sorted(range(len(known)), key=lambda i: known[i] or 0)
    images = array if name in array.dims else array.expand_dims("year")
    if images.ndim != 4:
        raise ForecastError(f"dimensions {array.dims}: needed are time or year, band, y, x")
    numbers, means = _numbers(images.values[order], meaning(array))
    place = {"crs": crs_of(data), "transform": transform_of(data, array)}
    told = None if known[0] is None else [known[i] for i in order]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch).resolve()
        try:
            paths = [
                _write(folder / f"image_{known[i] or 0}.tif", image, means, place)
                for i, image in zip(order, numbers, strict=True)
            ]
            forecast = model.forecast(*paths, years=told, white=white, **settings)
            whites = whites_of(paths, white, model.joint.params.data.white)
            layers, tags = _layers(forecast, paths[-1], whites[-1][0])
            told = by_tile(forecast.sentences)
        except (ForecastError, SceneError) as error:
            # the names of files that are gone would not help anyone
            raise ForecastError(str(error).replace(f"{folder}{os.sep}", "")) from error
    time = {} if name is None else {name: _a_year_later(times[order[-1]])}
    mapping = _mapping(mapping_of(data), place)
    made = _labelled(array, layers, means, time, mapping).assign_attrs(tags)
    return _with_sentences(made, told) if told else made


def _with_sentences(made: xr.Dataset, told: dict[tuple[int, int], list[str]]) -> xr.Dataset:
    """The Dataset with what led each member of each tile (tile, member)."""
    return made.assign(sentence=(("tile", "member"), [*told.values()])).assign_coords(
        tile_x=("tile", [x for x, _ in told]), tile_y=("tile", [y for _, y in told])
    )


def _years(times: Sequence[Any], given: Sequence[int] | None) -> list[int | None]:
    """The year of each image."""
    if given is not None and len(given) != len(times):
        raise ForecastError(f"{len(given)} years for {len(times)} images: give one for each")
    years = [year_in(time) for time in times] if given is None else list(given)
    if len(set(years)) < len(years):
        raise ForecastError(f"years {years}: needed is one image a year, such as its median")
    return years


def _numbers(values: np.ndarray, means: Meaning) -> tuple[np.ndarray, Meaning]:
    """What is to be written of values (T,3,H,W): as they are, or, where they were decoded from
    whole numbers, those again; and what these mean.
    """
    if values.dtype.kind not in "uif":
        raise ForecastError(f"values of type {values.dtype}: numbers are needed")
    if means.stored is None:
        as_float = values.dtype.kind == "f" and values.dtype.itemsize < 4
        dtype = np.dtype("float32") if as_float else values.dtype.newbyteorder("=")
        return values.astype(dtype), means
    known = np.isfinite(values)
    whole = (values.astype(np.float64) - means.offset) / means.scale
    near = np.rint(whole)
    limits = np.iinfo(means.stored)
    fits = (np.abs(whole - near) < 1e-2) & (near >= limits.min) & (near <= limits.max)
    spare = [code for code in (means.nodata, limits.min, limits.max) if code is not None]
    spare = [code for code in spare if not (near[known] == code).any()]
    if not fits[known].all() or not (spare or known.all()):
        return values, Meaning()  # changed since they were decoded: they mean what they are
    nodata = means.nodata if known.all() else float(spare[0])
    near = np.where(known, near, spare[0] if spare else 0).astype(means.stored)
    return near, Meaning(means.scale, means.offset, nodata, means.stored)


def _write(path: Path, image: np.ndarray, means: Meaning, place: dict[str, Any]) -> Path:
    """One image (3,H,W) as a GeoTIFF."""
    import rasterio

    shape = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
    profile = {"driver": "GTiff", "dtype": image.dtype, "nodata": _held(means.nodata, image.dtype)}
    profile |= shape | place
    with replaced(path) as part, without_remark(), rasterio.open(part, "w", **profile) as dst:
        dst.write(image)
        if (means.scale, means.offset) != (1.0, 0.0):
            dst.scales = [means.scale] * 3
            dst.offsets = [means.offset] * 3
    return path


def _held(nodata: float | None, dtype: np.dtype) -> float | None:
    """The nodata number, where a number of that type can be it."""
    if nodata is None or dtype.kind == "f":
        return nodata
    limits = np.iinfo(dtype)
    inside = np.isfinite(nodata) and limits.min <= nodata <= limits.max
    return nodata if inside and float(nodata).is_integer() else None


def _layers(
    forecast: Any, newest: Path, white: float
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Mean, spread (3,H,W) and members (S,3,H,W) float32 in the units of the newest image's file,
    NaN in its holes, and the tags of the forecast's file.
    """
    import rasterio

    with without_remark(), rasterio.open(forecast.save(newest.with_name("forecast.tif"))) as src:
        stored = src.read()
        tags = {key.lower(): value for key, value in src.tags().items()}
    factor, offset = rgb_scale(newest)
    members = (forecast.members.astype(np.float64) * white - offset) / factor
    holes = np.isnan(forecast.mean)
    layers = {
        "mean": np.where(holes, np.float32(np.nan), stored[:3]),
        "spread": np.where(holes, np.float32(np.nan), stored[3:]),
        "members": members.astype(np.float32),
    }
    for name in ("area_or_point", "inputs"):
        tags.pop(name, None)
    return layers, tags


def _a_year_later(time: Any) -> Any:
    """The value of a time coordinate a year after `time`."""
    import pandas as pd

    if isinstance(time, np.datetime64):
        return (pd.Timestamp(time) + pd.DateOffset(years=1)).to_datetime64()
    return time + 1 if isinstance(time, int | np.integer) else time.replace(year=time.year + 1)


def _mapping(said: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a grid mapping, as `said`, completed, and with where the pixels lie."""
    a, b, c, d, e, f = tuple(place["transform"])[:6]
    numbers = " ".join(repr(float(number)) for number in (c, a, b, f, d, e))
    wkt = {}
    if place["crs"] is not None:
        wkt = dict.fromkeys(("crs_wkt", "spatial_ref"), place["crs"].to_wkt())
    return wkt | said | {"GeoTransform": numbers}


def _labelled(
    array: xr.DataArray, layers: dict[str, np.ndarray], means: Meaning, time: dict[str, Any],
    mapping: dict[str, Any],
) -> xr.Dataset:  # fmt: skip
    """The layers as a Dataset on the grid of the images."""
    import xarray as xr

    rows, columns = space_of(array)
    coords: dict[str, Any] = {dim: array[dim] for dim in (rows, columns) if dim in array.coords}
    coords = {dim: (dim, values.values, values.attrs) for dim, values in coords.items()}
    coords |= {"band": list(COLOURS), **time, MAPPING: ((), 0, mapping)}
    decoded = means.stored is not None
    variables = {}
    for name, layer in layers.items():
        offset = 0.0 if name == "spread" else means.offset
        attrs = {"long_name": LONG_NAMES[name]}
        if decoded:
            layer = (layer.astype(np.float64) * means.scale + offset).astype(np.float32)
        elif (means.scale, means.offset) != (1.0, 0.0):
            attrs |= {"scale_factor": means.scale, "add_offset": offset}
        if "units" in array.attrs:
            attrs["units"] = array.attrs["units"]
        dims = ("member", "band", rows, columns)[-layer.ndim :]
        variables[name] = xr.Variable(dims, layer, attrs, {"grid_mapping": MAPPING})
    return xr.Dataset(variables, coords, {"Conventions": "CF-1.8"})
