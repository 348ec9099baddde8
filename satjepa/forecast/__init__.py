"""Rasters in, rasters out: a scene of any size is tiled, each tile is forecast, and they are
blended into GeoTIFFs.

What comes out lies on the grid of what went in (CRS and transform, or control points; size,
nodata), in the units of what went in: six float32 bands, mean and spread (standard deviation over
the samples) of red, green and blue in the year after the last. `request` looks at the files before
the work, `scene` reads them by rows, `tiles`, `blend` and `stream` make rows of the forecast,
`pieces` keeps them, `write` writes, `raster` has them one after the other, `folder` writes a folder
of files.
"""

from satjepa.forecast.raster import Settings, forecast_images, forecast_raster, forecasting
from satjepa.forecast.request import Request, check_files, check_output, local_file
from satjepa.forecast.tiles import axis_tiles, blended, cover, padded, tile_batch, tiles
from satjepa.forecast.write import BANDS, write_forecast

__all__ = [
    "BANDS",
    "Request",
    "Settings",
    "axis_tiles",
    "blended",
    "check_files",
    "check_output",
    "cover",
    "forecast_images",
    "forecast_raster",
    "forecasting",
    "local_file",
    "padded",
    "tile_batch",
    "tiles",
    "write_forecast",
]
