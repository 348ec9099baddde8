"""A file is replaced whole or not at all, with the permissions of any other file."""

import os
import stat
from pathlib import Path

import pytest

from satjepa import paths
from satjepa.paths import replaced


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "deep" / "a.txt"
    with replaced(path, sync) as part:
        assert part.parent == path.parent and not path.exists()
        part.write_text("old")
    with replaced(str(path), sync) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), replaced(path) as part:
        part.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_also_a_dangling_one(tmp_path: Path) -> None:
    for there in (True, False):
        target = tmp_path / f"store-{there}" / "real.txt"
        link = tmp_path / f"link-{there}"
        if there:
            target.parent.mkdir()
            target.write_text("old")
        link.symlink_to(target)
        with replaced(link) as part:
            part.write_text("new")
        assert link.is_symlink() and target.read_text() == "new" and not target.is_symlink()


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for umask, mode in ((0o022, 0o644), (0o007, 0o660)):
        before = os.umask(umask)
        try:
            with replaced(path) as part:
                part.write_text("x")
                part.chmod(0o600)  # as safetensors leaves it
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_name_as_long_as_can_be(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 125 + ".tiff")  # 255 bytes
    with replaced(path) as part:
        part.write_text("x")
    assert path.read_text() == "x"


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no regular file"), replaced(tmp_path):
        pytest.fail("a folder was given out")
    with pytest.raises(OSError, match="no regular file"), replaced("/dev/null"):
        pytest.fail("a device was given out")


def test_the_disk_is_waited_for_where_asked(tmp_path: Path, monkeypatch) -> None:
    waited = []
    monkeypatch.setattr(paths, "to_disk", waited.append)
    with replaced(tmp_path / "a") as part:
        part.touch()
    assert waited == []
    with replaced(tmp_path / "a", sync=True) as part:
        part.touch()
    assert waited == [part, tmp_path]
