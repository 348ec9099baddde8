"""Checkpoints: atomic under a kill at any line, exact round trip, no pickle, kind errors."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from checkpoint_files import consistent, header, write

from satjepa.training import checkpoint
from satjepa.training.checkpoint import CheckpointError

OPERATIONS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
}


def test_round_trip_is_bit_equal_and_plain(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(5, 3).to(torch.bfloat16),
        "a": torch.randn(7).double(),
        "n": torch.tensor(3),
    }
    optimizer = {"x/step": torch.tensor(2.0)}
    state = {"step": 4, "position": [1, 2]}
    checkpoint.save(tmp_path / "m", tensors, header(), state, optimizer)
    found = checkpoint.load(tmp_path / "m", with_optimizer=True)
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)
    assert torch.equal(found.optimizer["x/step"], torch.tensor(2.0))
    assert found.state["step"] == 4 and found.state["position"] == [1, 2]
    assert found.header["split"] == "s" * 64 and found.header["config"]["train"]["lr"] == 1e-3
    assert checkpoint.read_header(tmp_path / "m") == found.header
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    files = sorted(p.name for p in (tmp_path / "m").iterdir())
    assert files == ["model.safetensors", "optimizer.safetensors", "state.json"]
    source = Path(checkpoint.__file__).read_text()
    assert "torch.load" not in source and "import pickle" not in source


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    a = write(tmp_path / "a", 1.0)
    b = write(tmp_path / "b", 1.0)
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZER, checkpoint.STATE):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    # More than one metadata entry would come in random order.
    with open(a / checkpoint.MODEL, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert list(head["__metadata__"]) == ["satjepa"]


def killed_at(point: int, folder: Path) -> int:
    """Save value 2 in a child killed before its `point`-th operation on files; its status."""
    child = os.fork()
    if child == 0:
        left = point

        def audit(event: str, args: tuple) -> None:
            nonlocal left
            if event in OPERATIONS and str(folder.parent) in str(args):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(audit)
        write(folder, 2.0)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("gap", [False, True])
def test_a_kill_at_any_moment_leaves_a_loadable_checkpoint(tmp_path: Path, gap: bool) -> None:
    """gap: the save before was killed between its two renames, so only m.previous is there."""
    first = write(tmp_path / "first", 1.0)
    values = set()
    between = 0
    for point in range(100):
        folder = tmp_path / f"{point}"
        shutil.copytree(first, tmp_path / f"{point}.previous" if gap else folder)
        status = killed_at(point, folder)
        between += not folder.exists()
        value = consistent(folder)
        values.add(value)
        assert checkpoint.exists(folder)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        if point % 4 == 0:
            write(folder, 3.0)  # the next save cleans up
            assert consistent(folder) == 3.0
            assert [p.name for p in tmp_path.glob(f"{point}*")] == [f"{point}"]
    assert status == 0 and value == 2.0 and point > 15, point
    assert values == {1.0, 2.0} and between > 0


def test_everything_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "m", 1.0)
    calls = []
    fsync = os.fsync
    replace = os.replace

    def watched_fsync(fd: int) -> None:
        calls.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        fsync(fd)

    def watched_replace(a: Path, b: Path) -> None:
        calls.append((a.name, b.name))
        replace(a, b)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    write(folder, 2.0)
    new = tmp_path / "m.tmp"
    written = [new / checkpoint.MODEL, new / checkpoint.OPTIMIZER, new / checkpoint.STATE, new]
    assert calls == [*written, ("m", "m.previous"), ("m.tmp", "m"), tmp_path]


def test_a_failing_disk_keeps_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "m", 1.0)
    real = os.replace
    for fail in ("fsync", "replace-1", "replace-2"):
        calls = iter(range(10))

        def broken(*args: object, fail: str = fail, calls=calls) -> None:
            if fail == "fsync" or next(calls) == int(fail[-1]) - 1:
                raise OSError("No space left on device")
            real(*args)

        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, fail.split("-")[0], broken)
            write(folder, 2.0)
        assert consistent(folder) == 1.0
        assert [p.name for p in tmp_path.iterdir()] == ["m"], fail


def test_a_bad_write_is_noticed_before_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "m", 1.0)

    def flips_a_bit(path: Path) -> None:
        if path.is_file():
            return
        blob = bytearray((path / checkpoint.MODEL).read_bytes())
        blob[-1] ^= 1
        (path / checkpoint.MODEL).write_bytes(blob)

    with (
        monkeypatch.context() as patch,
        pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"),
    ):
        patch.setattr(checkpoint, "to_disk", flips_a_bit)
        write(folder, 2.0)
    assert consistent(folder) == 1.0


def test_remove_takes_what_a_kill_left_beside(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", 1.0)
    shutil.copytree(folder, tmp_path / "m.previous")
    shutil.copytree(folder, tmp_path / "m.tmp")
    checkpoint.remove(folder)
    assert not checkpoint.exists(folder) and not list(tmp_path.iterdir())


def test_missing_damaged_and_foreign_are_errors_that_say_so(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(CheckpointError, match=r"no checkpoint at .*gone \(no such folder\)"):
        checkpoint.load(tmp_path / "gone")
    (tmp_path / "other").mkdir()
    save_file({"w": torch.ones(1)}, tmp_path / "other" / "pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"it holds .*pytorch_model"):
        checkpoint.load(tmp_path / "other")
    (tmp_path / "x.pth.tar").write_bytes(b"80")
    with pytest.raises(CheckpointError, match="is a file; a satjepa checkpoint is a folder"):
        checkpoint.load(tmp_path / "x.pth.tar")

    folder = write(tmp_path / "m", 1.0)
    save_file({"w": torch.ones(1)}, folder / checkpoint.MODEL)
    with pytest.raises(CheckpointError, match=r"not a satjepa checkpoint: format None"):
        checkpoint.read_header(folder)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        checkpoint.load(folder)
    write(folder, 1.0)
    (folder / checkpoint.OPTIMIZER).unlink()
    assert checkpoint.load(folder).optimizer == {}  # a forecast needs no optimiser
    with pytest.raises(CheckpointError, match=r"not complete: optimizer\.safetensors is missing"):
        checkpoint.load(folder, with_optimizer=True)
    (folder / checkpoint.STATE).write_text("{")
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        checkpoint.load(folder)
