"""The files that programs keep beside a raster and read with it: overviews, statistics, masks,
world files.

Where a raster is replaced they go too, else they lend the new one the old one's values and place.
"""

from __future__ import annotations

import os
from pathlib import Path

# after the whole name: a.tif.ovr
_OF_NAME = (".ovr", ".ovr.ovr", ".aux.xml", ".aux", ".rrd", ".msk", ".msk.ovr", ".vat.dbf")
_OF_NAME += (".vat.cpg", ".xml")
# instead of the suffix: a.prj; to these come the world files of the suffix: a.tfw, a.tifw
_OF_STEM = (".aux", ".rrd", ".ovr", ".wld", ".prj", ".tab", ".rpb", ".imd", "_rpc.txt")
# whose a.prj, say, it may be instead
_OTHERS = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".img", ".bil", ".bsq", ".bip"}
_OTHERS |= {".asc", ".gif", ".bmp", ".vrt", ".ntf", ".ecw", ".sid", ".shp", ".map", ".dat", ".mif"}


def companions(path: str | Path) -> list[Path]:
    """The companions of a raster that lie beside it, whether or not it is there itself.

    Those that are named after its stem alone are not counted where another raster or map has that
    stem too (a.prj beside a.shp): they may be that one's. Letter case does not matter, as to those
    who read them.
    """
    path = Path(path)
    if not path.parent.is_dir():
        return []
    stem = path.stem.lower()
    suffix = path.suffix.lower()[1:]
    worlds = (f".{suffix[:1]}{suffix[-1:]}w", f".{suffix[:1]}{suffix[-1:]}wx", f".{suffix}w")
    of_name = {path.name.lower() + ending for ending in _OF_NAME}
    of_stem = {stem + ending for ending in (*_OF_STEM, *worlds)}
    entries = sorted(path.parent.iterdir())
    for entry in entries:
        other = entry.suffix.lower() in _OTHERS and entry.stem.lower() == stem
        if other and entry.name != path.name:
            of_stem = set()
    return [entry for entry in entries if entry.name.lower() in of_name | of_stem]


def remove_companions(path: str | Path) -> None:
    """Remove the companions of a raster, also of the file that it links to."""
    for name in dict.fromkeys((str(path), os.path.realpath(path))):
        for entry in companions(name):
            if entry.is_file() or entry.is_symlink():
                entry.unlink()
