"""Which images a year's composite is made of, and in what blocks: decided once, and kept, so that
a run that goes on makes the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.paths import write_text
from satjepa.region.assets import RGB, Image, image_from, newest_baselines
from satjepa.region.grid import UtmGrid
from satjepa.region.offsets import CLEAR, Offset, prove
from satjepa.region.read import MissingFileError, Reader

RECIPE = 1  # of the composite; one more where the same images would give other pixels
STACK = 256 * 2**20  # bytes that the images of a block may take
SMALLEST = 128  # pixels a side of a block
CHECKED = "plan.json"


@dataclass(frozen=True)
class Planned:
    """An image with its offset; the share of the region that it shows without clouds."""

    image: Image
    offset: Offset
    clear: float


@dataclass(frozen=True)
class Plan:
    """The images of a year, those left out (name and why), and pixels a side of a block."""

    images: list[Planned]
    left_out: list[tuple[str, str]]
    side: int

    def report(self) -> list[dict[str, Any]]:
        """Of each image what a reader of the composite may want to know."""
        return [
            {
                "item": one.image.name,
                "datetime": one.image.when,
                "offset": one.offset.value,
                "offset_reason": one.offset.reason,
                "against_metadata": one.offset.contradicted,
                "clear_share": round(one.clear, 4),
            }
            for one in self.images
        ]


def key_of(settings: dict[str, Any]) -> str:
    """A short name for all that decides the pixels of a year."""
    text = json.dumps(settings | {"recipe": RECIPE}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def make_plan(
    images: Iterable[Image],
    grid: UtmGrid,
    reader: Reader,
    *,
    max_cloud: float,
    side: int,
    workers: int,
) -> Plan:
    """Look at each image, coarsely: leave out those with more than `max_cloud` percent of clouds
    by their metadata, older versions of the same, those with a file missing, and those that show
    nothing of the region; prove the offsets of the others. Blocks have `side` pixels, or
    fewer where the images would take more than STACK. Raises ServerError.
    """
    images = list(images)
    left_out = [
        (one.name, f"{one.cloud:.0f} % of clouds")
        for one in images
        if one.cloud is not None and one.cloud > max_cloud
    ]
    gone = {name for name, _ in left_out}
    candidates = [one for one in images if one.name not in gone]
    newest = newest_baselines(candidates)
    left_out += [
        (one.name, "an older version of another") for one in candidates if one not in newest
    ]
    kept = []
    with ThreadPoolExecutor(workers) as pool:
        seen = pool.map(lambda image: _look(image, grid, reader), newest)
        for image, planned in zip(newest, seen, strict=True):
            if isinstance(planned, str):
                left_out.append((image.name, planned))
            else:
                kept.append(planned)
    while side > SMALLEST and len(kept) * len(RGB) * 2 * side**2 > STACK:
        side //= 2
    return Plan(kept, left_out, side)


def _look(image: Image, grid: UtmGrid, reader: Reader) -> Planned | str:
    """An image with its offset, or why it is left out."""
    try:
        scl = reader.sample(image.hrefs["scl"], grid)
        if not np.isin(scl, CLEAR).any():
            return "nothing clear in the region"
        blue = reader.sample(image.hrefs["blue"], grid)
        for band in ("red", "green"):
            reader.check(image.hrefs[band])
    except MissingFileError as error:
        return str(error)
    rows = min(scl.shape[0], blue.shape[0])
    columns = min(scl.shape[1], blue.shape[1])
    scl = scl[:rows, :columns]
    blue = blue[:rows, :columns]
    clear = float(np.isin(scl, CLEAR).mean())
    return Planned(image, prove(image.stated, image.says, blue, scl), clear)


def kept_plan(folder: Path, make: Callable[[], Plan]) -> Plan:
    """The plan kept in a folder of work, or a new one, which is kept there then."""
    path = folder / CHECKED
    if not path.is_file():
        plan = make()
        images = [
            {"image": p.image.as_dict(), "offset": asdict(p.offset), "clear": p.clear}
            for p in plan.images
        ]
        stored = {"images": images, "left_out": plan.left_out, "side": plan.side}
        write_text(path, json.dumps(stored, indent=1))
    stored = json.loads(path.read_text(encoding="utf-8"))
    images = [
        Planned(image_from(one["image"]), Offset(**one["offset"]), one["clear"])
        for one in stored["images"]
    ]
    return Plan(images, [tuple(pair) for pair in stored["left_out"]], stored["side"])
