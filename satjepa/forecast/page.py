"""One self-contained HTML page of a forecast: any two layers beside each other, with what was said,
set and scored. It opens from a disk, asks nobody for anything and runs no script but its own.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.contracts import CAPTION_KINDS
from satjepa.data.display import is_display
from satjepa.data.errors import GridMismatchError
from satjepa.data.georeference import georeference, georeference_of
from satjepa.data.grid import upright
from satjepa.data.rasters import open_raster, rgb_scale
from satjepa.data.stack import ForecastError, layout_of, whites_of
from satjepa.forecast.page_place import Place
from satjepa.forecast.page_scores import Units, scores_of
from satjepa.forecast.reduced import EXACT, QUALITY, data_uri, read_reduced
from satjepa.forecast.request import check_output
from satjepa.forecast.write import BANDS
from satjepa.paths import write_text

SIDE = 2048  # pixels of a picture, at most
ICON = 32
NEXT = 0  # the year of a forecast where that of the images is not known
Years = Sequence[tuple[int | None, Path]]
_TITLES = {"informative": "what covers it", "geometric": "how it is laid out"}
_TITLES |= {"semantic": "what it is"}


@dataclass(frozen=True)
class Files:
    """What a page is made from, the years of forecasts known or NEXT. units: of the images and
    whites of each, by path.
    """

    images: Years
    forecasts: Years
    truth: dict[int, Path]
    members: dict[int, list[Path]]
    units: dict[Path, Units]
    white: float
    reflectance: bool


def write_page(
    out: Path,
    images: Years,
    forecasts: Years,
    *,
    truth: dict[int, Path] | None = None,
    members: dict[int, list[Path]] | None = None,
    captions: dict[str, str | dict] | None = None,
    settings: dict[str, str],
    attribution: str | None,
    place: str | None = None,
    side: int = SIDE,
) -> Path:
    """Write the page of a forecast; returns its path.

    Args:
        images: year and RGB GeoTIFF of the inputs, oldest first.
        forecasts: year and GeoTIFF as `write_forecast` writes it, mean and spread, in the units of
            the newest image; WHITE of its tags is the value shown as white.
        truth: the image of a forecast's year; members: RGB GeoTIFFs in the same units, by year.
            Where the year is not known, it is 0.
        captions: by a year, as "2023", or another title: a sentence, or one for each kind.
        settings: names and values to print, in this order.
        attribution: of the images, None for none.
        place: name in the title; default: the region in the name of the newest image, else that.
        side: pixels of a picture at most; larger rasters are shown by means of step x step pixels.

    Raises ForecastError where there is nothing to show or a file is no forecast,
    GridMismatchError where a file lies elsewhere than the newest image, and what `rgb_scale` raises
    for one that cannot be read without doubt.
    """
    if not (images and forecasts):
        raise ForecastError("a page needs the images and a forecast from them: name both")
    known = [(NEXT if year is None else year, Path(path)) for year, path in forecasts]
    files = _looked_at(images, known, truth or {}, members or {})
    check_output(out, [path for _, path, _ in _rasters(files)])
    newest = georeference(files.images[-1][1])
    turn = newest.north_up()
    step = max(1, -(-max(newest.height, newest.width) // side))
    lies = Place(newest, turn, step)
    layers, top = _layers(files, lies)
    name = place or _name_of(files.images[-1][1])
    data = lies.facts() | _words(files, lies, top)
    data |= {
        "layers": layers,
        "colours": _colours(),
        "top": top,
        "scores": _scores(files),
        "captions": _captions(captions or {}, [year for year, _ in known]),
        "settings": [[key, str(value)] for key, value in settings.items()],
        "attribution": attribution or "",
    }
    icon = _icon(files, lies)
    write_text(out, _filled(name, _forecast_for(files), data, icon))
    return Path(out)


def _looked_at(
    images: Years, forecasts: Years, truth: dict[int, Path], members: dict[int, list[Path]]
) -> Files:
    """The files, after a look at each: where it lies, in which units it is."""
    images = [(year, Path(path)) for year, path in images]
    newest = images[-1][1]
    paths = [path for _, path in images]
    with open_raster(forecasts[0][1], len(BANDS)) as src:
        noted = src.tags().get("WHITE")
    whites = whites_of(paths, float(noted) if noted else None)
    units = {
        path: Units(*rgb_scale(path), white) for path, (white, _) in zip(paths, whites, strict=True)
    }
    white = whites[-1][0]
    for path in truth.values():
        (own, _), _ = whites_of([path, newest], white)
        units[path] = Units(*rgb_scale(path), own)
    files = Files(images, forecasts, truth, members, units, white, not is_display(newest))
    place = georeference(newest)
    for _, path, bands in _rasters(files):
        with open_raster(path, bands) as src:
            if difference := place.difference(georeference_of(src)):
                raise GridMismatchError(
                    path, difference, f"the grid of {newest}", "show it with images of its own grid"
                )
    return files


def _rasters(files: Files) -> Iterator[tuple[int | None, Path, int]]:
    """(year, path, bands) of every file."""
    for year, path in files.images:
        yield year, path, 3
    for year, path in files.forecasts:
        yield year, path, len(BANDS)
    for year, paths in files.members.items():
        yield from ((year, path, 3) for path in paths)
    for year, path in files.truth.items():
        yield year, path, 3


def _layers(files: Files, place: Place) -> tuple[list[dict[str, Any]], float]:
    """The layers of a page, and the value that has the last colour of the maps: the 99th percentile
    of spread and error over all years, 1 is white.
    """
    layers = []
    for year, path in files.images:
        name = "last image" if year is None else str(year)
        picture = data_uri(_shown(path, place, files.units[path]))
        layers.append(_layer("image", year, name, "Images", picture))
    maps = {}
    last = files.units[files.images[-1][1]]
    for year, path in files.forecasts:
        when = _year_name(year)
        stored = upright(read_reduced(path, len(BANDS), place.step), place.turn)
        mean = last.display(stored[:3])
        found = {"spread": (last.difference(stored[3:]).mean(0), "spread of the members")}
        group = f"Forecast for {when}"
        layers.append(_layer("mean", year, f"{when}: forecast", group, data_uri(mean)))
        for number, member in enumerate(files.members.get(year, []), 1):
            picture = data_uri(_shown(member, place, last))
            name = f"{when}: member {number}"
            layers.append(_layer("member", year, name, group, picture, number))
        if year in files.truth:
            seen = _shown(files.truth[year], place, files.units[files.truth[year]])
            layers.append(_layer("truth", year, f"{when}: truth", group, data_uri(seen)))
            found["error"] = (np.abs(mean - seen).mean(0), "error of the forecast")
        for kind, (values, name) in found.items():
            layers.append(_layer(kind, year, f"{when}: {name}", group, ""))
            maps[layers[-1]["id"]] = values
    top = max(_percentile(values) for values in maps.values())
    for layer in layers:
        if layer["id"] in maps:
            layer |= {"map": True, "src": data_uri(maps[layer["id"]] / top)}
    return layers, top


def _layer(
    kind: str, year: int | None, name: str, group: str, picture: str, number: int = 0
) -> dict[str, Any]:
    """A layer as `page.js` knows it; `role` is the same in another year."""
    role = f"{kind}{number or ''}"
    return {
        "id": f"{role}-{'last' if year is None else year}", "kind": kind, "role": role,
        "year": year, "name": name, "group": group, "src": picture, "map": False,
    }  # fmt: skip


def _shown(path: Path, place: Place, units: Units) -> np.ndarray:
    """An RGB file as a picture (3,h,w), 1 is white, NaN where it has no value."""
    return units.display(upright(read_reduced(path, 3, place.step), place.turn))


def _percentile(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return max(float(np.percentile(known, 99)), 1e-3) if known.size else 1e-3


def _colours() -> list[int]:
    """The 256 colours of the maps, from dark to bright, 0xRRGGBB."""
    from matplotlib import colormaps

    table = colormaps["magma"](np.arange(256), bytes=True)[:, :3].astype(int)
    return (table @ [1 << 16, 1 << 8, 1]).tolist()


def _icon(files: Files, place: Place) -> str:
    """The middle of the first forecast, small."""
    path = files.forecasts[0][1]
    small = max(1, min(place.files.height, place.files.width) // ICON)
    mean = upright(read_reduced(path, len(BANDS), small)[:3], place.turn)
    height, width = mean.shape[1:]
    top = max(0, (height - ICON) // 2)
    left = max(0, (width - ICON) // 2)
    last = files.units[files.images[-1][1]]
    return data_uri(last.display(mean[:, top : top + ICON, left : left + ICON]))


def _scores(files: Files) -> list[dict[str, Any]]:
    """PSNR of each forecast with a truth, and of the last image taken for it."""
    rows = []
    last = files.images[-1][1]
    for year, path in files.forecasts:
        if year in files.truth:
            truth = files.truth[year]
            both = scores_of(path, last, truth, files.units[last], files.units[truth])
            numbers = [value if np.isfinite(value) else None for value in both]
            names = ("forecast", "persistence")
            rows.append({"name": _year_name(year)} | dict(zip(names, numbers, strict=True)))
    return rows


def _captions(captions: dict[str, str | dict], forecasts: list[int]) -> list[dict[str, Any]]:
    """What is said, in the order given; of a forecast's year only while that is shown."""
    found = []
    for key, said in captions.items():
        year = next((year for year in forecasts if _year_name(year) == str(key)), None)
        parts = [["", said]] if isinstance(said, str) else _parts(said)
        title = str(key) if year is None else f"{key}, forecast"
        found.append({"title": title, "year": year, "parts": parts})
    return found


def _parts(said: dict[str, str]) -> list[list[str]]:
    """The sentences of each kind, those that satjepa knows first and in its order."""
    known = [kind for kind in CAPTION_KINDS if kind in said]
    others = [kind for kind in said if kind not in known]
    return [[_TITLES.get(kind, str(kind)), str(said[kind])] for kind in known + others]


def _year_name(year: int) -> str:
    return "next year" if year == NEXT else str(year)


def _forecast_for(files: Files) -> str:
    first = files.forecasts[0][0]
    last = files.forecasts[-1][0]
    more = f" to {last}" if last != first else ""
    return f"forecast for {_year_name(first)}{more}"


def _name_of(image: Path) -> str:
    """The place, as far as the name of an image tells it."""
    layout = layout_of(image)
    name = layout[0] if layout else re.sub(r"[\W_]*(19|20)\d\d(?!\d)", "", image.stem)
    return name.replace("_", " ").strip() or image.stem


def _words(files: Files, place: Place, top: float) -> dict[str, Any]:
    """The sentences of a page, and what it needs for others."""
    years = [str(year) for year, _ in files.images if year is not None]
    listed = " and ".join(filter(None, [", ".join(years[:-1]), *years[-1:]]))
    images = "image" if len(years) == 1 else "images"
    made = f"Made from the {images} of {listed}" if listed else "Made from the last image"
    unit = "reflectance" if files.reflectance else "where 0 is black and 1 is white"
    height, width = place.shape
    exact = "8 bits, without loss" if height * width <= EXACT else f"WebP, quality {QUALITY}"
    full = f"{place.full[1]} × {place.full[0]}"
    step = place.step
    scale = "at full size" if step == 1 else (
        f"each pixel the mean of {step} × {step} of the {full} in the files"
    )  # fmt: skip
    white = files.white if files.reflectance else 1.0
    shown = f" Reflectance {files.white:g} and more is shown as white." if files.reflectance else ""
    most = f"0 to {top * white:.3f} and more"
    return {
        "years": [year for year, _ in files.forecasts],
        "names": {str(year): _year_name(year) for year, _ in files.forecasts},
        "lead": f"{made}. Drag the line to compare.",
        "legend": f"{most}{', reflectance' if files.reflectance else '; 1 is black to white'}",
        "note": f"Pictures of {width} × {height} px, {scale}; {exact}.{shown} Values at the "
        f"pointer are those of the pictures, {unit}.",
        "white": white,
    }


def _filled(place: str, what: str, data: dict[str, Any], icon: str) -> str:
    """The page: templates beside this file, with nothing in them that is not escaped."""
    read = {
        name: Path(__file__).with_name(f"page.{name}").read_text(encoding="utf-8")
        for name in ("html", "css", "js")
    }
    hashes = {
        name: b64encode(sha256(read[name].encode()).digest()).decode() for name in ("css", "js")
    }
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{hashes['css']}'; script-src "
        f"'sha256-{hashes['js']}'; base-uri 'none'; form-action 'none'"
    )
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {"policy": policy, "place": html.escape(place), "what": html.escape(what)}
    parts["icon"] = icon
    parts |= {"style": read["css"], "data": text, "script": read["js"]}
    return re.sub(r"\{\{(\w+)\}\}", lambda hit: parts[hit[1]], read["html"])
