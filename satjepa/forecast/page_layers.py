"""The layers of a page: every file as a picture, spread and error as maps on one scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from satjepa.data.grid import upright
from satjepa.forecast.page_files import Files, year_name
from satjepa.forecast.page_place import Place
from satjepa.forecast.page_scores import Units
from satjepa.forecast.reduced import data_uri, read_reduced
from satjepa.forecast.write import BANDS

ICON = 32  # pixels


def layers_of(files: Files, place: Place) -> tuple[list[dict[str, Any]], float]:
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
        when = year_name(year)
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


def colours() -> list[int]:
    """The 256 colours of the maps, from dark to bright, 0xRRGGBB."""
    from matplotlib import colormaps

    table = colormaps["magma"](np.arange(256), bytes=True)[:, :3].astype(int)
    return (table @ [1 << 16, 1 << 8, 1]).tolist()


def icon_of(files: Files, place: Place) -> str:
    """The middle of the first forecast, small."""
    path = files.forecasts[0][1]
    small = max(1, min(place.files.height, place.files.width) // ICON)
    mean = upright(read_reduced(path, len(BANDS), small)[:3], place.turn)
    height, width = mean.shape[1:]
    top = max(0, (height - ICON) // 2)
    left = max(0, (width - ICON) // 2)
    last = files.units[files.images[-1][1]]
    return data_uri(last.display(mean[:, top : top + ICON, left : left + ICON]))
