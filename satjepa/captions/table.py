"""The captions tables: one Parquet file for each captioner and prompt version, one row an image.

A captioner writes its own file, `<captioner>/<prompt version>/captions.parquet`, and no other's: a
second captioner changes nothing for the first. `caption_patches` writes as it goes, each time the
whole file anew beside the old one and then over it, so that an interruption costs at most the
captions of `every` seconds and never the file. Running it again adds only what is missing, and
replaces what was said of an image whose pixels have changed since. Rows are sorted: the bytes do
not depend on interruptions, nor on how many processes wrote them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.contracts import CAPTION_KINDS, Captions, PatchKey
from satjepa.data.share import Share
from satjepa.paths import replaced

if TYPE_CHECKING:
    import pandas as pd

Image = tuple[
    "PatchKey", np.ndarray, np.ndarray | None
]  # key, rgb (3,H,W) float in [0,1], valid (H,W) bool
Captioner = Callable[[np.ndarray, np.ndarray | None], Captions]
COLUMNS = {
    "region": "str",
    "year": "int32",
    "x": "int32",
    "y": "int32",
    **dict.fromkeys(CAPTION_KINDS, "str"),
    "captioner": "str",
    "prompt_version": "int32",
    "preset": "str",
    "image": "str",  # hash of the pixels that were captioned
}
UNIQUE = ["captioner", "prompt_version", *PatchKey._fields]


def folder_of(home: str | Path, captioner: str, prompt_version: int) -> Path:
    """<home>/<captioner>/<prompt version>: where what one captioner wrote, or what came of it, is.

    A hub id or a path is a folder in a folder, as `${captions.captioner}` is in dvc.yaml.
    ValueError for a path with "..", which would lead out of `home`.
    """
    parts = Path(captioner.strip("/")).parts
    if ".." in parts or not parts:
        raise ValueError(
            f"captions.captioner is {captioner!r}, which names no folder below {home}: give rules, "
            "a hub id, or a path without '..'"
        )
    return Path(home, *parts, str(prompt_version))


def read_table(path: str | Path) -> pd.DataFrame:
    """The table at `path` with the columns of `COLUMNS`; empty where there is no file."""
    import pandas as pd

    if not Path(path).exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    try:
        return pd.read_parquet(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a Parquet file that can be read ({error}): remove it and run the "
            "caption stage again"
        ) from error


def lookup(path: str | Path, captioner: str, prompt_version: int) -> dict[PatchKey, Captions]:
    """The captions of one captioner and prompt version, by image."""
    table = _rows_of(path, captioner, prompt_version)
    texts = zip(*(table[kind] for kind in CAPTION_KINDS), strict=True)
    return {key: Captions(*text) for key, text in zip(_keys(table), texts, strict=True)}


def _rows_of(path: str | Path, captioner: str, prompt_version: int) -> pd.DataFrame:
    table = read_table(path)
    return table[(table.captioner == captioner) & (table.prompt_version == prompt_version)]


def _keys(table: pd.DataFrame) -> list[PatchKey]:
    columns = (table[name].tolist() for name in PatchKey._fields)
    return [PatchKey(*key) for key in zip(*columns, strict=True)]


def caption_patches(
    patches: Iterable[Image],
    captioner: Captioner,
    path: str | Path,
    name: str,
    prompt_version: int,
    every: float = 30.0,
    total: int | None = None,
    progress: bool = True,
    share: Share | None = None,
) -> int:
    """Caption the images that the table at `path` lacks.

    Args:
        patches: key, rgb and valid of each image; taken one by one.
        captioner: rgb and valid to three texts, such as `rules.caption`.
        name, prompt_version: what the rows say about the captioner; an image is skipped where there
            is a row of both, made of the same pixels.
        every: seconds between two writes of the file.
        total: length of `patches` for the progress bar, if it has none.
        share: of several processes that call this with the same arguments, each captions its
            images, and the first puts the rows together.

    Returns how many captions were added, by all processes.
    """
    from tqdm import tqdm

    share = share or Share()
    path = Path(path)
    if share.rank == 0:
        _put_together(path)  # what interrupted processes left
    share.wait()
    table = _rows_of(path, name, prompt_version)
    done = dict(zip(_keys(table), table["image"], strict=True))
    rest = _Rest(path if share.world == 1 else _part(path, share.rank), every)
    written_by = {"captioner": name, "prompt_version": prompt_version}
    shown = tqdm(patches, "captions", total, unit="patch", disable=not progress or share.rank > 0)
    try:
        for key, rgb, valid in share.of(shown):
            image = _hash(rgb, valid)
            if done.get(key) != image:
                done[key] = image
                texts = captioner(rgb, valid)._asdict()
                rest.add(key._asdict() | texts | written_by | {"image": image})
    finally:
        rest.write()
    share.wait()
    if share.rank == 0:
        _put_together(path)
    added = sum(share.gather([rest.added]))
    return added


def _hash(rgb: np.ndarray, valid: np.ndarray | None) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(rgb), digest_size=8)
    if valid is not None:
        digest.update(np.ascontiguousarray(valid))
    return digest.hexdigest()


class _Rest:
    """Rows that are not in the file yet."""

    def __init__(self, path: Path, every: float) -> None:
        self.path = path
        self.every = every
        self.rows: list[dict] = []
        self.added = 0
        self.written = time.monotonic()

    def add(self, row: dict) -> None:
        self.rows.append(row)
        self.added += 1
        if time.monotonic() - self.written >= self.every:
            self.write()

    def write(self) -> None:
        import pandas as pd

        if self.rows:
            _add(self.path, pd.DataFrame(self.rows)[list(COLUMNS)].astype(COLUMNS))
        self.rows = []
        self.written = time.monotonic()


def _add(path: Path, rows: pd.DataFrame) -> None:
    """Write the table at `path` with some rows more, or in place of those of the same images."""
    import pandas as pd

    table = pd.concat([read_table(path), rows], ignore_index=True) if path.exists() else rows
    table = table.drop_duplicates(UNIQUE, keep="last").sort_values(UNIQUE, ignore_index=True)
    with replaced(path, sync=True) as part:
        table.to_parquet(part, index=False)


def _part(path: Path, rank: int) -> Path:
    """Where one of several processes writes its rows: beside the table."""
    return path.with_name(f"{path.stem}.{rank}{path.suffix}")


def _put_together(path: Path) -> None:
    """Add the rows of the processes' files to the table, and remove these."""
    for part in sorted(path.parent.glob(f"{path.stem}.*{path.suffix}")):
        _add(path, read_table(part))
        part.unlink()
