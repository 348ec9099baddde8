"""The captions table: one Parquet file, one row for each image, captioner and prompt version; rows
are only added.

`caption_patches` writes as it goes, each time the whole file anew beside the old one and then over
it, so that an interruption costs at most `flush` captions and never the file. Running it again adds
only what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satjepa.contracts import Captions, PatchKey

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
    "informative": "str",
    "geometric": "str",
    "semantic": "str",
    "captioner": "str",
    "prompt_version": "int32",
    "preset": "str",
}


def read_table(path: str | Path) -> pd.DataFrame:
    """The table at `path` with the columns of `COLUMNS`; empty where there is no file."""
    import pandas as pd

    if not Path(path).exists():
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in COLUMNS.items()})
    return pd.read_parquet(path)


def lookup(path: str | Path, captioner: str, prompt_version: int) -> dict[PatchKey, Captions]:
    """The captions of one captioner and prompt version, by image."""
    table = read_table(path)
    table = table[(table.captioner == captioner) & (table.prompt_version == prompt_version)]
    keys = zip(
        table.preset,
        table.region,
        table.year.tolist(),
        table.x.tolist(),
        table.y.tolist(),
        strict=True,
    )
    texts = zip(table.informative, table.geometric, table.semantic, strict=True)
    return {PatchKey(*key): Captions(*text) for key, text in zip(keys, texts, strict=True)}


def caption_patches(
    patches: Iterable[Image],
    captioner: Captioner,
    path: str | Path,
    name: str,
    prompt_version: int,
    flush: int = 4000,
    total: int | None = None,
    progress: bool = True,
) -> int:
    """Caption the images that the table at `path` lacks.

    Args:
        patches: key, rgb and valid of each image; taken one by one.
        captioner: rgb and valid to three texts, such as `rules.caption`.
        name, prompt_version: what the rows say about the captioner; an image is skipped where a row
            of both exists.
        flush: captions between two writes of the file.
        total: length of `patches` for the progress bar, if it has none.

    Returns how many captions were added.
    """
    from tqdm import tqdm

    done = set(lookup(path, name, prompt_version))
    rows = []
    added = 0
    written_by = {"captioner": name, "prompt_version": prompt_version}
    for key, rgb, valid in tqdm(
        patches, desc="captions", unit="patch", total=total, disable=not progress
    ):
        if key not in done:
            done.add(key)
            rows.append(key._asdict() | captioner(rgb, valid)._asdict() | written_by)
            added += 1
        if len(rows) >= flush:
            _append(path, rows)
            rows = []
    if rows:
        _append(path, rows)
    return added


def _append(path: str | Path, rows: list[dict]) -> None:
    import pandas as pd

    path = Path(path)
    fresh = pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)
    table = pd.concat([read_table(path), fresh], ignore_index=True) if path.exists() else fresh
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    table.to_parquet(unfinished, index=False)
    os.replace(unfinished, path)
