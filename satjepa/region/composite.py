"""The cloud-masked median of the images of a season, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy.ndimage import binary_erosion

from satjepa.region.assets import RGB
from satjepa.region.grid import UtmGrid, Window
from satjepa.region.offsets import CLEAR
from satjepa.region.plan import Planned
from satjepa.region.read import Reader

GROWN = 1  # pixels by which what is not clear is grown: bilinear pixels beside it are part cloud
NOTHING = 65535  # in a stack, where an image shows nothing; sorted last
BRIGHTEST = 20000  # DN, above which the layout takes an image for one of another scale
MARGIN = 0.02  # degrees around an image's box, which is of its footprint, rounded


def compose_block(
    images: Sequence[Planned], grid: UtmGrid, window: Window, reader: Reader, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """The median of a window: (3, h, w) uint16 red, green and blue, reflectance x 10000 from 1 on
    and 0 where no image is clear; and how many were clear, (h, w) uint16.

    Holds all images of the window, 6 bytes a pixel each. Raises MissingFileError, ServerError.
    """
    near = [one for one in images if _touches(one, grid, window)]
    stack = np.full((len(near), len(RGB), window.height, window.width), NOTHING, np.uint16)

    def fill(number: int) -> None:
        _read_clear(near[number], grid, window, reader, stack[number])

    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(fill, range(len(near))):
            pass  # an error of a thread is raised here
    return median(stack)


def median(stack: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median over the first axis of (N, 3, h, w) uint16, NOTHING left out; the stack is sorted in
    place. Returns what `compose_block` does.
    """
    height, width = stack.shape[2:]
    count = (stack[:, 0] != NOTHING).sum(0, dtype=np.uint16)
    if not len(stack):
        return np.zeros((len(RGB), height, width), np.uint16), count
    stack.sort(axis=0)
    last = np.maximum(count.astype(np.intp), 1)
    ends = [np.broadcast_to(rank, (1, *stack.shape[1:])) for rank in ((last - 1) // 2, last // 2)]
    low, high = (np.take_along_axis(stack, rank, 0)[0].astype(np.float32) for rank in ends)
    middle = np.rint((low + high) / 2).clip(1, BRIGHTEST)
    return np.where(count > 0, middle, 0).astype(np.uint16), count


def _read_clear(
    one: Planned, grid: UtmGrid, window: Window, reader: Reader, out: np.ndarray
) -> None:
    """Write the clear pixels of an image, offset added, into `out` (3, h, w) uint16."""
    wide = Window(
        window.column - GROWN,
        window.row - GROWN,
        window.width + 2 * GROWN,
        window.height + 2 * GROWN,
    )
    clear = np.isin(reader.on_grid(one.image.hrefs["scl"], grid, wide, exact=True), CLEAR)
    square = np.ones((2 * GROWN + 1,) * 2, bool)
    clear = binary_erosion(clear, square)[GROWN:-GROWN, GROWN:-GROWN]
    if not clear.any():
        return
    rgb = [reader.on_grid(one.image.hrefs[band], grid, window, exact=False) for band in RGB]
    stored = np.stack(rgb).astype(np.int32)
    clear &= (stored > 0).all(0)
    np.copyto(out, (stored + one.offset.value).clip(1, NOTHING - 1), "unsafe", where=clear)


def _touches(one: Planned, grid: UtmGrid, window: Window) -> bool:
    """Whether the box of an image may meet a window."""
    west, south, east, north = _flat(one.image.bbox)
    lon, lat = grid.lonlat(window)
    if lat.max() < south - MARGIN or lat.min() > north + MARGIN:
        return False
    width = (east - west) % 360 or 360.0
    along = (lon - west + MARGIN) % 360  # degrees east of the image's western edge
    spread = (lon - lon[0] + 180) % 360 - 180
    inside = bool((along <= width + 2 * MARGIN).any())
    return inside or bool(spread.max() - spread.min() > width)


def _flat(bbox: tuple[float, ...]) -> tuple[float, ...]:
    """West, south, east and north of a box of 4 or 6 numbers."""
    return bbox if len(bbox) == 4 else (*bbox[:2], *bbox[3:5])
