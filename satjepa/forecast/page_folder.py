"""The page of what a forecast leaves in a folder: its rasters, their tags and the STAC items beside
them say all that the page shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from satjepa.contracts import CAPTION_KINDS
from satjepa.data.georeference import georeference_of
from satjepa.data.grid import upright
from satjepa.data.rasters import open_raster, rgb_scale
from satjepa.data.stack import ForecastError, whites_of, year_of
from satjepa.forecast.led import of_the_middle, read_sentences
from satjepa.forecast.page import write_page
from satjepa.forecast.page_files import FIRST, NEXT, Years, year_name
from satjepa.forecast.page_scores import Units
from satjepa.forecast.reduced import read_reduced
from satjepa.forecast.write import BANDS

INDEX = "index.html"
DESCRIBED = 512  # pixels of a side that a caption by rule is written of
_FORECAST = re.compile(r"forecast_(\d{4}|next_year(?:_\d+)?)\.tiff?")
_MEMBER = re.compile(r"member_(\d+)_(\d{4}|next_year(?:_\d+)?)\.tiff?")
_NAMES = {
    "MODEL": "Model (sha256)", "SEED": "Seed", "SAMPLES": "Members", "STEPS": "Sampler steps",
    "GUIDANCE": "Guidance", "STRENGTH": "Noise at the start", "WHITE": "Shown as white",
    "INPUTS": "Made from",
}  # fmt: skip
# tags that are said elsewhere, or say nothing to a reader
_ELSEWHERE = ("YEAR", "AREA_OR_POINT", "OVR_RESAMPLING_ALG")
_CREDIT = ("ATTRIBUTION", "COPYRIGHT", "TIFFTAG_COPYRIGHT", "LICENSE", "LICENCE")


def page_of(
    folder: str | Path,
    images: Sequence[str | Path] | None = None,
    truth: Sequence[str | Path] = (),
    captions: dict[str, str | dict] | None = None,
    files: Sequence[Path] | None = None,
) -> Path:
    """Write `index.html` into a folder that `satjepa forecast --out` has written: the page of all
    years that were forecast there. Returns its path.

    Args:
        folder: with forecast_<YEAR>.tif, maybe member_<NUMBER>_<YEAR>.tif and a STAC item
            forecast_<YEAR>.json.
        images: that the forecast was made from, oldest first; default: those that the item names.
        truth: images of the years forecast; the year is in the name, or a single one is of the
            first.
        captions: as in `write_page`; default: the last image and each forecast, described by rule,
            and the captions that led the forecast, written ones for the tile in the middle.
        files: what to show of the folder; default: all forecasts and members in it, which may be of
            several runs.

    Raises ForecastError where there is no folder, or no forecast in it, or nothing tells the
    images, and what `write_page` raises.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ForecastError(f"{folder}: no folder: name the one that satjepa forecast has written")
    found = _listed(folder) if files is None else sorted(files)
    forecasts = _forecasts(folder, found)
    inputs = [Path(image) for image in images or _inputs_of(folder, forecasts)]
    shown = [(year_of(path), path) for path in inputs]
    tags = _tags(forecasts[0][1], len(BANDS))
    return write_page(
        folder / INDEX,
        shown,
        forecasts,
        truth=_truths(truth, [year for year, _ in forecasts]),
        members=_members(found),
        captions=_described(shown, forecasts, tags) if captions is None else captions,
        settings=_settings(tags, [path.name for _, path in forecasts], inputs),
        attribution=_credit(inputs[-1]),
    )


def _forecasts(folder: Path, files: Sequence[Path]) -> list[tuple[int, Path]]:
    """Year and path of every forecast among the files of a folder, by year."""
    hits = [(_FORECAST.fullmatch(path.name), path) for path in files]
    found = sorted((_year(hit[1]), path) for hit, path in hits if hit)
    if not found:
        raise ForecastError(
            f"{folder}: no forecast_<YEAR>.tif in it: name the folder that satjepa forecast --out "
            "has written"
        )
    return found


def _members(files: Sequence[Path]) -> dict[int, list[Path]]:
    """The members of each year, by their number."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in files:
        if hit := _MEMBER.fullmatch(path.name):
            found.setdefault(_year(hit[2]), []).append((int(hit[1]), path))
    members = {}
    for year, numbered in found.items():
        members[year] = [path for _, path in sorted(numbered)]
    return members


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _year(text: str) -> int:
    """2022, or how many years after the last image: next_year, next_year_2."""
    number = text.removeprefix("next_year").lstrip("_")
    return int(number) if number else NEXT


def _inputs_of(folder: Path, forecasts: Years) -> list[Path]:
    """The images that the STAC item of the first forecast names, oldest first: later ones may be
    made from forecasts.
    """
    item = forecasts[0][1].with_suffix(".json")
    cure = "name the images that the forecast was made from (--image, once for each)"
    if not item.exists():
        raise ForecastError(f"{folder}: no {item.name} that tells the images: {cure}")
    try:
        read = json.loads(item.read_text(encoding="utf-8"))
        paths = [_local(href, item.parent) for href in _hrefs(read)] or _named(read, folder)
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ForecastError(f"{item}: no STAC item ({error}): {cure}") from error
    if not paths:
        raise ForecastError(f"{item}: names no images of its own: {cure}")
    if lacking := [path for path in paths if not path.is_file()]:
        raise ForecastError(f"{item}: {lacking[0]}, which it names, is not there: {cure}")
    return sorted(paths, key=lambda path: (year_of(path) or 0, path.name))


def _hrefs(item: dict[str, Any]) -> Iterator[str]:
    """Where the inputs of an item lie: assets with the role or in the name of an input, or links to
    what it is derived from.
    """
    found = []
    for name, asset in item["assets"].items():
        roles = [*asset.get("roles", []), *re.split(r"[-_: ]", name)]
        if {"input", "inputs", "source"} & set(roles):
            found.append(asset["href"])
    links = [link["href"] for link in item.get("links", []) if link["rel"] == "derived_from"]
    yield from dict.fromkeys(found or links)


def _named(item: dict[str, Any], folder: Path) -> list[Path]:
    """The images that an item names without saying where they lie: in the folder, or beside it."""
    names = [image["name"] for image in item.get("properties", {}).get("satjepa:inputs", [])]
    beside = [folder.parent / name for name in names]
    return [path if path.is_file() else folder / path.name for path in beside]


def _local(href: str, folder: Path) -> Path:
    """The file of an href, which may be relative to the item."""
    parts = urlparse(href)
    return folder / (unquote(parts.path) if parts.scheme == "file" else href)


def _truths(paths: Sequence[str | Path], years: list[int]) -> dict[int, Path]:
    """The truth of each year; ForecastError for one of no year that was forecast."""
    found = {}
    for path in map(Path, paths):
        year = year_of(path)
        if year is None and len(paths) == 1:
            year = years[0]
        if year not in years and min(years) >= FIRST:
            listed = ", ".join(map(str, years))
            what = "says no year in its name" if year is None else f"is of {year} by its name"
            raise ForecastError(f"{path} {what}, the forecast is of {listed}: name that image")
        found[year if year in years else years[0]] = path
    return found


def _tags(path: Path, bands: int) -> dict[str, str]:
    with open_raster(path, bands) as src:
        return src.tags()


def _settings(tags: dict[str, str], files: list[str], images: list[Path]) -> dict[str, str]:
    """What the tags of a forecast say of how it was made, in words, and the names of the files."""
    named = {_NAMES[key]: tags[key] for key in _NAMES if key in tags}
    named["Made from"] = ", ".join(path.name for path in images)
    others = [key for key in tags if key not in (*_NAMES, *_ELSEWHERE, *_CREDIT)]
    rest = {_plain(key): tags[key] for key in others if not key.startswith("GIVEN_")}
    return named | rest | {"Files": ", ".join(files)}


def _plain(key: str) -> str:
    return key.replace("_", " ").capitalize()


def _credit(image: Path) -> str | None:
    """Whom the images are owed to, as far as their tags say so."""
    tags = {key.upper(): value for key, value in _tags(image, 3).items()}
    said = dict.fromkeys(tags[key].strip() for key in _CREDIT if key in tags)
    return "  ·  ".join(filter(None, said)) or None


def _described(images: Years, forecasts: Years, tags: dict[str, str]) -> dict[str, Any]:
    """Captions by rule of the last image and of each forecast; those given to lead one instead."""
    year, newest = images[-1]
    paths = [path for _, path in images]
    noted = tags.get("WHITE")
    white, _ = whites_of(paths, float(noted) if noted else None)[-1]
    units = Units(*rgb_scale(newest), white)
    said = {"last image" if year is None else str(year): _by_rule(newest, 3, units)}
    for year, path in forecasts:
        name = year_name(year)
        said[name] = _by_rule(path, len(BANDS), units)
        own = _tags(path, len(BANDS))
        given = {
            kind: own[f"GIVEN_{kind.upper()}"]
            for kind in CAPTION_KINDS
            if f"GIVEN_{kind.upper()}" in own
        }
        if given:
            said[f"{name}, as asked for"] = given
        if own.get("CAPTIONS") == "written":
            said |= _written(name, path)
    return said


def _written(name: str, forecast: Path) -> dict[str, dict[str, str]]:
    """What led each member of a forecast, of several tiles in the one in the middle."""
    folder = forecast.with_name(forecast.stem.replace("forecast", "sentences", 1) + ".csv")
    alone = forecast.with_suffix(".sentences.csv")
    file = next((file for file in (folder, alone) if file.is_file()), None)
    if file is None:
        return {}
    told = read_sentences(file)
    texts = of_the_middle(told)
    where = "" if len(texts) == len(told) else " of the tile in the middle"
    members = {f"member {number}": text for number, text in enumerate(texts, start=1)}
    return {f"{name}, what led each member{where}": members}


def _by_rule(path: Path, bands: int, units: Units) -> dict[str, str]:
    """A raster in words, at a size that the rules take seconds for."""
    import numpy as np

    from satjepa.captions.rules import caption

    with open_raster(path, bands) as src:
        place = georeference_of(src)
    step = max(1, -(-max(place.height, place.width) // DESCRIBED))
    rgb = units.display(upright(read_reduced(path, bands, step)[:3], place.north_up()))
    valid = np.isfinite(rgb).all(0)
    return caption(np.nan_to_num(rgb), valid, encoding="display")._asdict()
