"""One self-contained HTML page of a forecast: any two layers beside each other, with what was said,
set and scored. It opens from a disk, asks nobody for anything and runs no script but its own.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from satjepa.contracts import CAPTION_KINDS
from satjepa.data.georeference import georeference
from satjepa.data.stack import ForecastError, layout_of
from satjepa.forecast.page_files import NEXT, Files, Years, looked_at, rasters, year_name
from satjepa.forecast.page_layers import colours, icon_of, layers_of
from satjepa.forecast.page_place import Place
from satjepa.forecast.page_scores import scores_of
from satjepa.forecast.reduced import EXACT, QUALITY
from satjepa.forecast.request import check_output
from satjepa.paths import write_text

SIDE = 2048  # pixels of a picture, at most
_TITLES = {"informative": "what covers it", "geometric": "how it is laid out"}
_TITLES |= {"semantic": "what it is"}


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
            Where years are not known, they are 1 (the next), 2 and so on.
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
    known = [
        (ahead if year is None else year, Path(path))
        for ahead, (year, path) in enumerate(forecasts, NEXT)
    ]
    files = looked_at(images, known, truth or {}, members or {})
    check_output(out, [path for _, path, _ in rasters(files)])
    newest = georeference(files.images[-1][1])
    turn = newest.north_up()
    step = max(1, -(-max(newest.height, newest.width) // side))
    lies = Place(newest, turn, step)
    layers, top = layers_of(files, lies)
    name = place or _name_of(files.images[-1][1])
    data = lies.facts() | _words(files, lies, top)
    data |= {
        "layers": layers,
        "colours": colours(),
        "top": top,
        "scores": _scores(files),
        "captions": _captions(captions or {}, [year for year, _ in known]),
        "settings": [[key, str(value)] for key, value in settings.items()],
        "attribution": attribution or "",
    }
    icon = icon_of(files, lies)
    write_text(out, _filled(name, _forecast_for(files), data, icon))
    return Path(out)


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
            rows.append({"name": year_name(year)} | dict(zip(names, numbers, strict=True)))
    return rows


def _captions(captions: dict[str, str | dict], forecasts: list[int]) -> list[dict[str, Any]]:
    """What is said, in the order given; of a forecast's year only while that is shown."""
    found = []
    for key, said in captions.items():
        about = str(key).split(",")[0]  # "2023, as asked for" is of 2023
        year = next((year for year in forecasts if year_name(year) == about), None)
        parts = [["", said]] if isinstance(said, str) else _parts(said)
        title = f"{key}, forecast" if year is not None and about == str(key) else str(key)
        found.append({"title": title, "year": year, "parts": parts})
    return found


def _parts(said: dict[str, str]) -> list[list[str]]:
    """The sentences of each kind, those that satjepa knows first and in its order."""
    known = [kind for kind in CAPTION_KINDS if kind in said]
    others = [kind for kind in said if kind not in known]
    return [[_TITLES.get(kind, str(kind)), str(said[kind])] for kind in known + others]


def _forecast_for(files: Files) -> str:
    first = files.forecasts[0][0]
    last = files.forecasts[-1][0]
    more = f" to {year_name(last)}" if last != first else ""
    return f"forecast for {year_name(first)}{more}"


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
        "names": {str(year): year_name(year) for year, _ in files.forecasts},
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
