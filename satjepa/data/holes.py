"""Where a raster has no data: every way of a file to say so counts, and a block that was never
written says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.data.bands import band_order
from satjepa.data.errors import BandCountError, corrupt

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

    Box = Window | tuple[int, int, int, int]


def refuse_unwritten_blocks(src: DatasetReader) -> None:
    """Blocks that were never written read as zeros without an error; they are holes where nodata, a
    mask or the opacity says so.
    """
    if src.driver != "GTiff":
        return
    for band in range(1, 2 if src.interleaving.value == "PIXEL" else src.count + 1):
        for (row, col), window in src.block_windows(band):
            if src.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=band) is not None:
                continue
            if read_valid(src, window)[1].any():
                raise corrupt(src.name, f"an unwritten block in band {band}, {window}")


def read_valid(src: DatasetReader, box: Box | None) -> tuple[np.ndarray, np.ndarray]:
    """Values (bands, H, W) as stored, of an image red, green and blue, and where every band has one
    (H, W).

    A pixel has none where any band is the nodata number or not finite, or where a mask (inside the
    file or in a .msk beside it) or the opacity leaves it out: all that the file has counts, not the
    first only.
    """
    from rasterio.enums import MaskFlags
    from rasterio.windows import Window

    window = Window(*box) if isinstance(box, tuple) else box
    if window is not None and (
        min(window.col_off, window.row_off) < 0
        or window.col_off + window.width > src.width
        or window.row_off + window.height > src.height
    ):
        raise ValueError(
            f"{src.name}: {window} reaches beyond the raster of {src.width}x{src.height} pixels"
        )
    bands = band_order(src)[0] if src.count in (3, 4) else src.indexes
    data = src.read(bands, window=window)  # (bands, H, W)
    valid = np.ones(data.shape[1:], bool)  # (H, W)
    shadowed = src.count == 4 and src.nodata is not None  # rasterio warns where opacity is not read
    if not shadowed:
        valid &= (src.read_masks(bands, window=window) != 0).all(0)
    for values, band in zip(data, bands, strict=True):
        nodata = src.nodatavals[band - 1]
        by_mask = MaskFlags.nodata in src.mask_flag_enums[band - 1] and not shadowed
        if nodata is not None and not by_mask:
            valid &= values != nodata  # GDAL reads a mask, where there is one, instead of it
    if data.dtype.kind == "f":
        valid &= np.isfinite(data).all(0)
    if src.count == 4:
        valid &= src.read(4, window=window) == _opaque(src)
    elif data.dtype == np.uint16 and src.nodata is None:
        valid &= data.any(0)  # 0 is the no-data number of Sentinel-2 products
    return data, valid


def _opaque(src: DatasetReader) -> float:
    """The number of full opacity."""
    dtype = np.dtype(src.dtypes[-1])
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0


def refuse_other_alpha(src: DatasetReader, path: Path) -> None:
    """The fourth of four bands of 8 bits is called opacity unasked: one that is neither none nor
    full in more than a tenth of the pixels is something else, such as near infrared.
    """
    if src.count != 4:
        return
    between = 0
    for _, window in src.block_windows(4):
        values = src.read(4, window=window)
        between += int(((values != 0) & (values != _opaque(src))).sum())
    if between > 0.1 * src.width * src.height:
        found = "4 bands, the last one called opacity but neither 0 nor full"
        raise BandCountError(path, found, "3 bands", "export the red, green and blue bands only")
