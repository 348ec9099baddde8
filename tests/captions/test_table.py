"""The captions table: rows are added once, kept whatever happens, and told apart by captioner and
prompt version.
"""

from pathlib import Path

import numpy as np
import pytest

from satjepa.captions.table import COLUMNS, caption_patches, lookup, read_table
from satjepa.contracts import Captions, PatchKey

KEYS = [PatchKey("strong", "Aldmere", 2017 + i, 32 * i, 64) for i in range(5)]


def patches(keys: list[PatchKey] = KEYS) -> list[tuple]:
    return [(key, np.full((3, 4, 4), key.x, np.float32), None) for key in keys]


class Spy:
    """A captioner that counts its calls and fails at one of them."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def __call__(self, rgb: np.ndarray, valid: np.ndarray | None) -> Captions:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        return Captions(*(f"{word} {rgb[0, 0, 0]:.0f}" for word in ("i", "g", "s")))


def write(
    path: Path, spy: Spy, keys: list[PatchKey] = KEYS, version: int = 1, **kwargs: object
) -> int:
    return caption_patches(patches(keys), spy, path, "spy", version, progress=False, **kwargs)


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "captions.parquet"
    assert read_table(path).empty
    assert list(read_table(path).columns) == list(COLUMNS)
    assert write(path, Spy()) == 5
    found = lookup(path, "spy", 1)
    assert list(found) == KEYS
    assert found[KEYS[2]] == Captions("i 64", "g 64", "s 64")
    table = read_table(path)
    assert list(table.columns) == list(COLUMNS)
    assert {name: str(kind) for name, kind in table.dtypes.items()} == COLUMNS


def test_only_missing_rows_are_captioned(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    spy = Spy()
    assert write(path, spy, KEYS[:2]) == 2
    assert write(path, spy, [*KEYS, KEYS[4]]) == 3
    assert spy.calls == 5
    assert len(read_table(path)) == 5


def test_versions_and_captioners_live_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    write(path, Spy(), version=1)
    assert write(path, Spy(), version=2) == 5
    assert len(read_table(path)) == 10
    assert len(lookup(path, "spy", 2)) == 5
    assert lookup(path, "another", 1) == {}


def test_an_interruption_keeps_what_was_flushed(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    with pytest.raises(KeyboardInterrupt):
        write(path, Spy(fail_at=4), flush=2)
    assert list(lookup(path, "spy", 1)) == KEYS[:2]
    spy = Spy()
    assert write(path, spy, flush=2) == spy.calls == 3
    assert list(lookup(path, "spy", 1)) == KEYS


def test_a_failing_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd

    path = tmp_path / "captions.parquet"
    write(path, Spy(), KEYS[:2])
    before = path.read_bytes()

    def half(self: pd.DataFrame, where: Path, **_: object) -> None:
        where.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(OSError, match="disk full"):
        write(path, Spy())
    assert path.read_bytes() == before
