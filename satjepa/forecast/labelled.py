"""What an xarray Dataset or DataArray says of its images: which of its variables and bands are red,
green and blue, of which years, where they lie, and what its numbers mean.

By the CF conventions, as rioxarray and odc-geo write them: a grid mapping (`spatial_ref`) with
`crs_wkt` and `GeoTransform`, coordinates at the centres of the pixels, `scale_factor`,
`add_offset` and `_FillValue` in the attributes of stored numbers, or in the encoding of decoded
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from satjepa.data.stack import ForecastError

if TYPE_CHECKING:
    import xarray as xr
    from rasterio import Affine
    from rasterio.crs import CRS

COLOURS = ("red", "green", "blue")
ALIASES = {
    "red": ("red", "r", "b04", "b4"),
    "green": ("green", "g", "b03", "b3"),
    "blue": ("blue", "b", "b02", "b2"),
}
SPACE = (
    ("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("Y", "X"), ("northing", "easting"),
)  # fmt: skip
TIME = ("time", "year")
FILLS = ("_FillValue", "missing_value", "nodata")
EVEN = 0.01  # of a pixel: by how much coordinates may lie off an even grid


def images_of(data: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """The images as one array (..., band, y, x), its bands named red, green and blue in that order.

    Raises ForecastError where these are not to be found without doubt.
    """
    import xarray as xr

    array = data
    if isinstance(data, xr.Dataset):
        array = _of_variables(data)
    ydim, xdim = space_of(array)
    if "band" not in array.dims:
        raise ForecastError(
            f"dimensions {array.dims}: needed are band, {ydim} and {xdim}, or a Dataset with the "
            f"variables {', '.join(COLOURS)}"
        )
    if extra := set(array.dims) - {"band", ydim, xdim, *TIME}:
        raise ForecastError(f"dimension {sorted(map(str, extra))[0]!r}: choose one of it (.isel)")
    array = array.isel(band=_positions(array)).assign_coords(band=list(COLOURS))
    return array.transpose(..., "band", ydim, xdim)


def _of_variables(data: xr.Dataset) -> xr.DataArray:
    """The array of a Dataset: of three variables, or of the one that has bands."""
    import xarray as xr

    names = {str(name).lower(): name for name in data.data_vars}
    found = _named(list(names))
    if found is not None:
        parts = [data[list(names.values())[i]] for i in found]
        kinds = {repr(meaning(part)) for part in parts}
        if len(kinds) > 1:
            raise ForecastError(f"{', '.join(COLOURS)} are stored differently: {sorted(kinds)}")
        array = xr.concat(parts, "band", coords="minimal", compat="override", join="exact")
        array.attrs = dict(parts[0].attrs)
        array.encoding = dict(parts[0].encoding)
        return array
    banded = [name for name, variable in data.data_vars.items() if "band" in variable.dims]
    if len(banded) != 1:
        raise ForecastError(
            f"variables {list(data.data_vars)}: needed are {', '.join(COLOURS)}, or one variable "
            "with a dimension band"
        )
    return data[banded[0]]


def _positions(array: xr.DataArray) -> list[int]:
    """Where red, green and blue are among the bands."""
    count = array.sizes["band"]
    labels = [str(value).lower() for value in array["band"].values]
    names = array.attrs.get("long_name")
    if isinstance(names, tuple | list) and len(names) == count:
        labels = [str(name).lower() for name in names]
    found = _named(labels)
    if found is not None:
        return found
    if count == 3 and all(label.isdigit() for label in labels):  # numbers: in their order
        return [0, 1, 2]
    raise ForecastError(
        f"bands {labels}: needed are {', '.join(COLOURS)}; choose them (.sel(band=...)), or name "
        "them in the coordinate band"
    )


def _named(labels: Sequence[str]) -> list[int] | None:
    """Where red, green and blue are among labels; None unless each is there once."""
    found = []
    for colour in COLOURS:
        hits = [i for i, label in enumerate(labels) if label in ALIASES[colour]]
        if len(hits) != 1:
            return None
        found += hits
    return found


def space_of(array: xr.DataArray) -> tuple[str, str]:
    """The names of the dimensions of rows and columns."""
    for names in SPACE:
        if set(names) <= set(array.dims):
            return names
    raise ForecastError(f"dimensions {array.dims}: those of rows and columns must be y and x")


def times_of(array: xr.DataArray) -> tuple[str | None, list[Any]]:
    """The name of the dimension or coordinate of time, and what it says of each image; None and a
    None where there is one image and no word of its time.
    """
    for name in TIME:
        if name in array.dims:
            if name not in array.coords:
                raise ForecastError(f"the dimension {name} has no coordinate: which years are it?")
            return name, list(array[name].values)
    for name in TIME:
        if name in array.coords and array[name].ndim == 0:
            return name, [array[name].values[()]]
    return None, [None]


def year_in(time: Any) -> int | None:
    """The year of a coordinate's value: a number, a numpy datetime or any object with a year."""
    if time is None:
        return None
    if isinstance(time, np.datetime64):
        return int(time.astype("datetime64[Y]").astype(int)) + 1970
    if isinstance(time, int | np.integer):
        return int(time)
    year = getattr(time, "year", None)
    if not isinstance(year, int):
        raise ForecastError(f"{time!r} is no time: years must be whole numbers or dates")
    return year


@dataclass(frozen=True)
class Meaning:
    """What numbers of an array stand for. number * scale + offset is what they say, `nodata` the
    number that says nothing; stored: their type in the file, where they were decoded from one.
    """

    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    stored: str | None = None


def meaning(array: xr.DataArray) -> Meaning:
    """By the attributes; for floating-point numbers that were decoded from whole ones, of those, by
    the encoding.
    """
    kind = array.encoding.get("rasterio_dtype", array.encoding.get("dtype"))
    whole = kind is not None and np.dtype(kind).kind in "ui"
    decoded = array.dtype.kind == "f" and whole
    said: Mapping[str, Any] = array.encoding if decoded else array.attrs
    fill = next((said[name] for name in FILLS if said.get(name) is not None), None)
    return Meaning(
        float(said.get("scale_factor", 1.0)),
        float(said.get("add_offset", 0.0)),
        None if fill is None else float(fill),
        np.dtype(kind).name if decoded else None,
    )


def crs_of(data: xr.Dataset | xr.DataArray) -> CRS | None:
    """The coordinate reference system; None where nothing is said of one. ForecastError for one
    that cannot be read.
    """
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    mapping = mapping_of(data)
    found = mapping.get("crs_wkt") or mapping.get("spatial_ref") or data.attrs.get("crs")
    if found is None:
        if "grid_mapping_name" in mapping:
            raise ForecastError("the grid mapping has no crs_wkt, which says the CRS in full")
        return None
    try:
        return CRS.from_user_input(found)
    except CRSError as error:
        raise ForecastError(f"the CRS cannot be read: {error}") from error


def mapping_of(data: xr.Dataset | xr.DataArray) -> dict[str, Any]:
    """The attributes of the grid mapping, whether it is a coordinate or, as in a netCDF that was
    opened plainly, a variable; {} where there is none.
    """
    held = {**getattr(data, "data_vars", {}), **data.coords}
    named = [
        where.get("grid_mapping")
        for variable in (data, *getattr(data, "data_vars", {}).values())
        for where in (variable.encoding, variable.attrs)
    ]
    for name in (*named, "spatial_ref", "crs"):
        if name in held and held[name].ndim == 0:
            return dict(held[name].attrs)
    return {}


def transform_of(data: xr.Dataset | xr.DataArray, array: xr.DataArray) -> Affine:
    """From (column, row) to coordinates: by the coordinates of the pixels' centres, which a part
    cut out of a data set keeps right; by the GeoTransform where it says the same, or there are
    none. The identity where nothing is said of the place.
    """
    from rasterio import Affine

    stated = _stated(data)
    ydim, xdim = space_of(array)
    height = array.sizes[ydim]
    width = array.sizes[xdim]
    oblique = stated is not None and (stated.b or stated.d)
    if oblique or not {ydim, xdim} <= set(array.coords):
        return Affine.identity() if stated is None else stated
    left, a = _edge(array[xdim].values, None if stated is None else stated.a, xdim)
    top, e = _edge(array[ydim].values, None if stated is None else stated.e, ydim)
    told = Affine(a, 0, left, 0, e, top)
    if stated is None:
        return told
    corners = [(0, 0), (width, height)]
    off = [np.subtract(told @ corner, stated @ corner) / (a, e) for corner in corners]
    return stated if np.abs(off).max() < EVEN else told


def _stated(data: xr.Dataset | xr.DataArray) -> Affine | None:
    """The transform that the grid mapping, or an attribute, states."""
    from rasterio import Affine

    stated = mapping_of(data).get("GeoTransform")
    if stated is not None:
        numbers = stated.split() if isinstance(stated, str) else stated
        c, a, b, f, d, e = (float(number) for number in numbers)
        return Affine(a, b, c, d, e, f)
    if "transform" in data.attrs:
        return Affine(*(float(number) for number in list(data.attrs["transform"])[:6]))
    return None


def _edge(centres: Sequence[float], stated: float | None, name: str) -> tuple[float, float]:
    """Where the first pixel begins, and the step to the next one."""
    values = np.asarray(centres, float)
    if len(values) == 1 and stated is None:
        raise ForecastError(f"one pixel along {name}, and no GeoTransform: how large is it?")
    step = stated if len(values) == 1 else float((values[-1] - values[0]) / (len(values) - 1))
    even = values[0] + step * np.arange(len(values))
    if step == 0 or not np.abs(values - even).max() <= EVEN * abs(step):
        raise ForecastError(f"the coordinate {name} is not evenly spaced: put it on a grid first")
    return float(values[0] - step / 2), step
