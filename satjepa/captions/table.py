"""The captions tables: one Parquet file for each captioner and prompt version, one row an image.

A captioner writes its own file, `<captioner>/<prompt version>/captions.parquet`, and no other's: a
second captioner changes nothing for the first. `writing` adds rows to it.

What a model wrote says in its row by which weights, prompts and library, and on which day. What was
measured by rule has none of that, and the file no columns for it: equal runs give equal bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from satjepa.contracts import CAPTION_KINDS, Captions, PatchKey
from satjepa.paths import replaced

if TYPE_CHECKING:
    import pandas as pd

RULES = "rules"  # the captioner that measures instead of writing
# Of what a model wrote; empty in what was measured by rule, and not in its file
PROVENANCE = (
    "revision",  # commit of a hub repository, hash of a folder
    "prompts",  # hash of all that was asked
    "library",
    "calls",  # "together" or "separate": how many answers the three captions are
    "date",  # day, in UTC
)
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
    **dict.fromkeys(PROVENANCE, "str"),
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
    """The table at `path` with the columns of `COLUMNS`; empty where there is no file, and what the
    file does not say of the provenance is empty.
    """
    import pandas as pd

    if not Path(path).exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    try:
        table = pd.read_parquet(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a Parquet file that can be read ({error}): remove it and run the "
            "caption stage again"
        ) from error
    lacking = [name for name in PROVENANCE if name not in table]
    table[lacking] = pd.DataFrame("", table.index, lacking, dtype="str")
    return table


def lookup(path: str | Path, captioner: str, prompt_version: int) -> dict[PatchKey, Captions]:
    """The captions of one captioner and prompt version, by image."""
    table = rows_of(path, captioner, prompt_version)
    texts = zip(*(table[kind] for kind in CAPTION_KINDS), strict=True)
    return {key: Captions(*text) for key, text in zip(keys_of(table), texts, strict=True)}


def rows_of(path: str | Path, captioner: str, prompt_version: int) -> pd.DataFrame:
    """The rows of one captioner and prompt version."""
    table = read_table(path)
    return table[(table.captioner == captioner) & (table.prompt_version == prompt_version)]


def keys_of(table: pd.DataFrame) -> list[PatchKey]:
    """Which image each row is about."""
    columns = (table[name].tolist() for name in PatchKey._fields)
    return [PatchKey(*key) for key in zip(*columns, strict=True)]


def add_rows(path: Path, rows: pd.DataFrame) -> None:
    """Write the table at `path` with further rows, or in place of those of the same images."""
    import pandas as pd

    table = pd.concat([read_table(path), rows], ignore_index=True) if path.exists() else rows
    table = table.drop_duplicates(UNIQUE, keep="last").sort_values(UNIQUE, ignore_index=True)
    if (table[list(PROVENANCE)] == "").all(axis=None):
        table = table.drop(columns=list(PROVENANCE))
    with replaced(path, sync=True) as part:
        table.to_parquet(part, index=False)
