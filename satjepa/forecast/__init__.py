"""Rasters in, rasters out: `forecast_raster` tiles a scene, forecasts each tile and blends them
into one GeoTIFF.

What comes out lies on the grid of what went in (CRS and transform, or control points; size,
nodata), in the units of what went in: six float32 bands, mean and spread (standard deviation over
the samples) of red, green and blue in the year after the last. `request` looks at the files before
the work, `tiles` does the work, `write` writes, `raster` has them one after the other.
"""

from satjepa.forecast.raster import forecast_raster
from satjepa.forecast.request import Request, check_files, check_output, local_file
from satjepa.forecast.tiles import axis_tiles, blended, cover, padded, tile_batch, tiles
from satjepa.forecast.write import BANDS, write_forecast

__all__ = [
    "BANDS",
    "Request",
    "axis_tiles",
    "blended",
    "check_files",
    "check_output",
    "cover",
    "forecast_raster",
    "local_file",
    "padded",
    "tile_batch",
    "tiles",
    "write_forecast",
]
