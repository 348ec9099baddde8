"""The captions table: rows are added once, kept whatever happens, and told apart by captioner and
prompt version.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from satjepa.captions.table import COLUMNS, folder_of, lookup, read_table
from satjepa.captions.writing import caption_patches
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
        write(path, Spy(fail_at=4))
    assert list(lookup(path, "spy", 1)) == KEYS[:3]
    spy = Spy()
    assert write(path, spy) == spy.calls == 2
    assert list(lookup(path, "spy", 1)) == KEYS
    write(tmp_path / "at_once.parquet", Spy())
    assert path.read_bytes() == (tmp_path / "at_once.parquet").read_bytes()


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from test_table import KEYS, Spy, write

class Fatal(Spy):
    def __call__(self, rgb, valid):
        if self.calls == 3:
            os.kill(os.getpid(), 9)
        return super().__call__(rgb, valid)

write(Path(sys.argv[1]), Fatal(), KEYS, every=0.0)
"""


def test_a_killed_captioner_goes_on(tmp_path: Path) -> None:
    """By SIGKILL, which nothing can answer; a half-written file lies about besides."""
    path = tmp_path / "captions.parquet"
    script = KILLED.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == -9
    assert list(lookup(path, "spy", 1)) == KEYS[:3]
    path.with_name("captions.parquet.part").write_bytes(b"half")
    spy = Spy()
    assert write(path, spy) == spy.calls == 2
    assert list(lookup(path, "spy", 1)) == KEYS


def test_an_image_that_has_changed_is_captioned_again(tmp_path: Path) -> None:
    """Its old row goes; those of images that are no longer asked for stay."""
    path = tmp_path / "captions.parquet"
    write(path, Spy())
    changed = [(key, rgb + 7 * (i == 1), valid) for i, (key, rgb, valid) in enumerate(patches())]
    spy = Spy()
    assert caption_patches(changed[:3], spy, path, "spy", 1, progress=False) == spy.calls == 1
    captions = lookup(path, "spy", 1)
    assert list(captions) == KEYS
    assert captions[KEYS[1]].semantic == "s 39"
    assert len(read_table(path)) == 5
    masked = [(key, rgb, np.zeros((4, 4), bool)) for key, rgb, _ in changed]
    assert caption_patches(masked, Spy(), path, "spy", 1, progress=False) == 5


def test_an_unreadable_table_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "captions.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"captions.parquet is not a Parquet file.*remove it"):
        write(path, Spy())
    assert path.exists()


@pytest.mark.parametrize(
    ("captioner", "folder"),
    [
        ("rules", "rules/2"),
        ("Qwen/Qwen3-VL-2B", "Qwen/Qwen3-VL-2B/2"),
        ("/models/qwen/", "models/qwen/2"),
    ],
)
def test_each_captioner_has_a_folder(captioner: str, folder: str) -> None:
    assert folder_of("home", captioner, 2) == Path("home", folder)


@pytest.mark.parametrize("captioner", ["../models/qwen", "/", ""])
def test_a_captioner_outside_of_the_folder_is_refused(captioner: str) -> None:
    with pytest.raises(ValueError, match=r"captions\.captioner is .* names no folder below home"):
        folder_of("home", captioner, 1)


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
