"""What the tests of pages share: a small scene with a hole in Sentinel-2's numbers, forecasts of it
and what a page holds.
"""

import base64
import html
import io
import json
import re
from pathlib import Path

import numpy as np
import rasterio
from forecast_files import NORTH, Noise, image, quiet, write
from PIL import Image
from rasterio.transform import Affine

from satjepa.data.rasters import without_remark
from satjepa.forecast import forecast_raster

HOLE = (slice(3, 6), slice(10, 14))  # rows and columns, 0 in every band
WHITE = 0.25  # of reflectance
SIZE = (24, 40)  # rows, columns


def scene(folder: Path, years: tuple = (2020, 2021), transform: Affine = NORTH, **more: object):
    """Images of uint16 reflectance, the last with a hole, in the published names: (year, path)."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for year in years:
        data = np.roll(image(*SIZE, "uint16"), year, axis=-1)
        if year == years[-1]:
            data[:, *HOLE] = 0
        path = folder / f"s2_rgb_Old_Town_{year}_10km.tif"
        found.append((year, write(path, data, transform, nodata=0, **more)))
    return found


def forecast(images: list, out: Path, seed: int = 0, **tags: str) -> Path:
    """The GeoTIFF of the year after the last of some images."""
    settings = quiet | {"patch": 16, "samples": 3, "seed": seed, "white": WHITE, "tags": tags}
    return forecast_raster([path for _, path in images], out, Noise(), **settings)


def member(of: Path, path: Path, shift: float) -> Path:
    """A member in the units and on the grid of a forecast: its mean, shifted."""
    with without_remark(), rasterio.open(of) as src:
        profile = src.profile | {"count": 3}
        data = src.read((1, 2, 3))
        data = np.where(data == src.nodata, data, data + np.float32(shift))
    with without_remark(), rasterio.open(path, "w", **profile) as dst:
        dst.write(data)
    return path


def stored(path: Path) -> np.ndarray:
    with without_remark(), rasterio.open(path) as src:
        return src.read().astype(np.float64)


def data_of(page: Path) -> dict:
    """What the script of a page is given."""
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.S
    )
    return json.loads(text)


def layers_of(page: Path) -> dict[str, dict]:
    return {layer["id"]: layer for layer in data_of(page)["layers"]}


def pixels(layer: dict) -> np.ndarray:
    """The bytes (h,w,4) of a layer's picture."""
    kind, _, text = layer["src"].partition(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))


def title_of(page: Path) -> str:
    return html.unescape(re.search("<title>(.*?)</title>", page.read_text())[1])
