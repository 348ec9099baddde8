"""Is a TIFF file all there? Where tags such as CRS or nodata are cut off its end, GDAL reads on
without them.
"""

from __future__ import annotations

import struct
from pathlib import Path

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, little and big endian
_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


def cut_off(path: Path) -> str:
    """What of a TIFF or BigTIFF lies beyond the end of the file: a directory, or the value of a
    tag; "" if nothing.

    Follows the chain of directories (image, overviews, masks) as the TIFF 6.0 specification lays it
    out. A file that is no TIFF, or too short to tell, is left to GDAL: "".
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
        if len(head) < 16 or head[:4] not in MAGIC:
            return ""
        order = "<" if head[:2] == b"II" else ">"
        big = b"+" in head[:4]
        number, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
        width = struct.calcsize(number)
        seen = set()
        (at,) = struct.unpack_from(order + number, head, width)
        while at and at not in seen:
            seen.add(at)
            file.seek(at)
            start = file.read(struct.calcsize(count))
            tags = int.from_bytes(start, "little" if order == "<" else "big")
            table = file.read(tags * entry + width)
            if not tags or len(table) < tags * entry + width:
                return f"the directory at byte {at}"
            for tag, kind, n, offset in struct.iter_unpack(
                order + "HH" + 2 * number, table[: tags * entry]
            ):
                length = n * _BYTES.get(kind, 1)
                if length > width and offset + length > size:
                    return f"the value of tag {tag}"
            (at,) = struct.unpack_from(order + number, table, tags * entry)
    return ""
