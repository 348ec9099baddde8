"""Which band of a raster is red, green and blue, as far as the file says: by the descriptions of
its bands, else by their colour interpretation. Most files say nothing: then it is the order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from satjepa.data.errors import BandOrderError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

COLOURS = ("red", "green", "blue")
# words of a description, in lower case; Sentinel-2 and Landsat 8 number these three alike
_WORDS = {"red": ("red", "r", "b4", "b04"), "green": ("green", "g", "b3", "b03")}
_WORDS["blue"] = ("blue", "b", "b2", "b02")
# a band that no image of red, green and blue has
_OTHERS = {
    *("edge", "rededge", "nir", "swir", "infrared", "coastal", "aerosol", "cirrus", "thermal"),
    *("b5", "b05", "b6", "b06", "b7", "b07", "b8", "b08", "b8a", "b9", "b09", "b10", "b11", "b12"),
    *("vv", "vh", "hh", "hv", "ndvi", "evi", "ndwi", "scl", "alpha", "mask", "dem"),
}
_KEYS = ("BANDNAME", "BAND_NAME", "NAME", "COLOR", "COLOUR")  # of a band's own tags


def band_order(src: DatasetReader) -> tuple[tuple[int, ...], str]:
    """The numbers (from 1) of the red, green and blue band of an open raster, and a word on it
    where that is not 1, 2, 3.

    Descriptions, which somebody wrote, count more than the interpretation red, green, blue, which
    GDAL gives any three bands of 8 bits. Raises BandOrderError where the two differ otherwise,
    where a band is none of the three, and where only a part of an unusual order is written.
    """
    described = [_colour(text) for text in _texts(src)]
    interpreted = [_interpretation(band.name) for band in src.colorinterp[:3]]
    by_default = src.dtypes[0] == "uint8" and interpreted == list(COLOURS)
    pairs = zip(described, interpreted, strict=True)
    if not by_default and any(a and b and a != b for a, b in pairs):
        raise _error(src, f"bands described as {described}, interpreted as {interpreted}")
    names = described if any(described) else interpreted
    if all(name in (None, colour) for name, colour in zip(names, COLOURS, strict=True)):
        return (1, 2, 3), ""
    if set(names) != set(COLOURS):
        raise _error(src, "bands " + ", ".join(name or "unknown" for name in names))
    order = tuple(names.index(colour) + 1 for colour in COLOURS)
    return order, f"its bands are {', '.join(names)}: read as red, green, blue"


def refuse_other_embedding(src: DatasetReader) -> None:
    """Raise BandOrderError where the bands of an AlphaEarth raster are named A00 to A63, as Google
    names them, and one stands in another place than its name says.
    """
    for place, text in enumerate(src.descriptions):
        name = re.fullmatch(r"A(\d\d)", text or "")
        if name and int(name[1]) != place:
            fix = "export the bands in the order of their names"
            raise BandOrderError(src.name, f"{text} as band {place + 1}", "A00 to A63", fix)


def has_alpha(src: DatasetReader) -> bool:
    """Is the last band of a raster said to be its opacity?"""
    return src.colorinterp[-1].name == "alpha"


def _texts(src: DatasetReader) -> list[str]:
    """What is written on each of the first three bands: its description, else a tag of it."""
    texts = []
    for band in (1, 2, 3):
        tags = {key.upper(): value for key, value in src.tags(band).items()}
        named = [tags[key] for key in _KEYS if key in tags]
        texts.append(src.descriptions[band - 1] or next(iter(named), ""))
    return texts


def _colour(text: str) -> str | None:
    """red, green or blue, "other" for a band that is none of them, None where the text does not
    tell.
    """
    words = re.findall(r"[a-z]+\d*[a-z]?|\d+", text.lower())
    if _OTHERS.intersection(words):
        return "other"
    letters = len(words) == 1  # a lone R, G or B; in a sentence it may be anything
    fits = {
        colour
        for colour, known in _WORDS.items()
        for word in words
        if word in known and (letters or len(word) > 1)
    }
    return fits.pop() if len(fits) == 1 else None


def _interpretation(name: str) -> str | None:
    if name in ("undefined", "gray", "grey", "palette"):  # GDAL's words for not said
        return None
    return name if name in COLOURS else "other"


def _error(src: DatasetReader, found: str) -> BandOrderError:
    accepted = "three bands that are red, green and blue, in an order that the file tells"
    fix = (
        "export red, green and blue, or write what they are into the descriptions of the bands "
        "(red, green, blue)"
    )
    return BandOrderError(src.name, found, accepted, fix)
