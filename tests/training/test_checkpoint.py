"""Checkpoints: atomic under a kill at any line, exact round trip, no pickle, and errors that say
what differs.
"""

import copy
import json
import os
import random
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from reach import REPO

from satjepa.config import from_dict, load_params
from satjepa.training import checkpoint, provenance
from satjepa.training.checkpoint import CheckpointError
from satjepa.training.state import optimizer_tensors, restore_optimizers, rng_state, set_rng_state

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
CONFIG = {
    "seed": 0,
    "data": {"root": "data", "patch": 64},
    "train": {"steps": 9, "lr": 1e-3, "log_every": 5, "target_ema": (0.9, 1.0)},
    "sample": {"steps": 20},
    "eval": {"batch": 8},
    "ablate": {"steps": 3, "seeds": [0], "arms": {"full": {}}},
}


def header(split: str = "s" * 64, backbone: str = "b" * 64, **dotted: object) -> dict:
    config = json.loads(json.dumps(CONFIG))
    for key, value in dotted.items():
        section, name = key.split("__")
        config.setdefault(section, {})[name] = value
    return provenance.make_header(config, split, backbone)


def write(folder: Path, value: float) -> Path:
    tensors = {
        "w": torch.full((3, 2), value),
        "half": torch.full((4,), value, dtype=torch.bfloat16),
    }
    optimizer = {"w/exp_avg": torch.full((3, 2), value)}
    return checkpoint.save(folder, tensors, header(), {"step": int(value)}, optimizer)


def consistent(folder: Path) -> float:
    """The one value every part of a loaded checkpoint must have."""
    found = checkpoint.load(folder, with_optimizer=True)
    tensors = (found.tensors["w"], found.optimizer["w/exp_avg"])
    values = {found.state["step"], *(v for t in tensors for v in t.unique().tolist())}
    assert len(values) == 1 and found.tensors["half"].dtype == torch.bfloat16
    return values.pop()


def test_round_trip_is_bit_equal_and_plain(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(5, 3).to(torch.bfloat16),
        "a": torch.randn(7).double(),
        "n": torch.tensor(3),
    }
    checkpoint.save(
        tmp_path / "m",
        tensors,
        header(),
        {"step": 4, "position": [1, 2]},
        {"x/step": torch.tensor(2.0)},
    )
    found = checkpoint.load(tmp_path / "m", with_optimizer=True)
    assert found.tensors.keys() == tensors.keys()
    assert all(
        torch.equal(found.tensors[k], v) and found.tensors[k].dtype == v.dtype
        for k, v in tensors.items()
    )
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
    with open(
        a / checkpoint.MODEL, "rb"
    ) as file:  # more than one metadata entry would come in random order
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert list(head["__metadata__"]) == ["satjepa"]


def killed_at(point: int, folder: Path) -> int:
    """Save value 2 in a child killed before its `point`-th operation on files (open, rename, ...);
    its status.
    """
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
    """gap: the save before was itself killed between its two renames, so only m.previous is
    there.
    """
    first = write(tmp_path / "first", 1.0)
    seen = set()
    between = 0
    for point in range(100):
        folder = tmp_path / f"{point}"
        shutil.copytree(first, tmp_path / f"{point}.previous" if gap else folder)
        status = killed_at(point, folder)
        between += not folder.exists()
        seen.add(value := consistent(folder))
        assert checkpoint.exists(folder)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        if point % 4 == 0:
            write(folder, 3.0)  # the next save cleans up
            assert consistent(folder) == 3.0
            assert [p.name for p in tmp_path.glob(f"{point}*")] == [f"{point}"]
    assert status == 0 and value == 2.0 and point > 15, point
    assert seen == {1.0, 2.0} and between > 0


def test_everything_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "m", 1.0)
    calls = []
    fsync = os.fsync
    replace = os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(Path(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append((a.name, b.name)), replace(a, b)))
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
        blob = bytearray((path / checkpoint.MODEL).read_bytes())
        blob[-1] ^= 1
        (path / checkpoint.MODEL).write_bytes(blob)

    with (
        monkeypatch.context() as patch,
        pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"),
    ):
        patch.setattr(checkpoint, "_sync_folder", flips_a_bit)
        write(folder, 2.0)
    assert consistent(folder) == 1.0


def test_remove_takes_what_a_kill_left_beside(tmp_path: Path) -> None:
    folder = write(tmp_path / "m", 1.0)
    shutil.copytree(folder, tmp_path / "m.previous"), shutil.copytree(folder, tmp_path / "m.tmp")
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


def test_a_run_knows_nothing_of_the_baselines() -> None:
    """Editing them must not change its checkpoint, nor keep it from being read."""
    params = load_params(Path(__file__).resolve().parents[2] / "params.yaml")
    config = provenance.make_header(params.as_dict(), "s", "b")["config"]
    assert "baselines" not in config and params.baselines
    assert from_dict(config | {"baselines": {}}).train == params.train


def test_another_run_is_named_setting_by_setting(tmp_path: Path) -> None:
    found = checkpoint.load(write(tmp_path / "m", 1.0))
    nothing = {
        "ablate": {"steps": 9, "seeds": [0], "arms": {}}
    }  # the lists of arms have no part in a run
    nothing |= {"published": {"steps": 9, "arms": {}}}
    assert found.header["config"] == json.loads(json.dumps(CONFIG)) | nothing
    provenance.require_same(found, header())
    harmless = header(
        sample__steps=5, train__log_every=1, eval__batch=1, data__root="x", ablate__steps=4
    )
    provenance.require_same(found, harmless)  # none of it changes a trained weight
    assert (
        harmless["config_digest"]
        == found.header["config_digest"]
        != header(train__lr=2e-3)["config_digest"]
    )
    with pytest.raises(CheckpointError) as error:
        provenance.require_same(
            found, header(split="t" * 64, train__lr=2e-3, model__use_jepa=False)
        )
    assert str(error.value).splitlines()[1:] == [
        "  model.use_jepa: (absent) in the checkpoint, False here",
        "  train.lr: 0.001 in the checkpoint, 0.002 here",
        "  split hash: ssssssssssss in the checkpoint, tttttttttttt here",
        "Restore these settings to go on with it; remove it, or do not resume, to begin anew.",
    ]
    lines = provenance.differences(header(), header(backbone="x"))
    assert lines == ["backbone hash: bbbbbbbbbbbb in the checkpoint, x here"]


def test_hash_changes_with_any_bit_and_only_then() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).bfloat16()
    before = provenance.hash_module(module)
    assert provenance.hash_module(module) == before and len(before) == 64
    module[0].weight.requires_grad_(False)
    frozen = provenance.hash_module(module, frozen_only=True)
    with torch.no_grad():
        module[0].bias.add_(1)  # trained: the hash of the frozen part stays
    assert (
        provenance.hash_module(module) != before
        and provenance.hash_module(module, frozen_only=True) == frozen
    )
    with torch.no_grad():
        module[0].weight.view(-1)[5:6].view(torch.int16).bitwise_xor_(1)
    assert provenance.hash_module(module, frozen_only=True) != frozen


def test_optimizer_and_random_generators_come_back_exactly() -> None:
    def make() -> tuple[dict, torch.optim.Optimizer]:
        torch.manual_seed(0)
        named = dict(torch.nn.Linear(4, 3).named_parameters())
        return named, torch.optim.AdamW(named.values(), lr=0.1)

    def step(named: dict, optimizer: torch.optim.Optimizer) -> None:
        for p in named.values():
            p.grad = torch.randn(p.shape)
        optimizer.step()

    named, optimizer = make()
    step(named, optimizer)
    random.gauss(0, 1), np.random.randn()  # both keep half a pair in hand
    tensors = optimizer_tensors([optimizer], named)
    states = rng_state()
    weights = {k: p.detach().clone() for k, p in named.items()}
    step(named, optimizer)
    expected = [
        random.gauss(0, 1),
        random.random(),
        np.random.randn(),
        np.random.rand(),
        torch.rand(1).item(),
    ]
    other, again = make()
    for name, p in other.items():
        p.data.copy_(weights[name])
    restore_optimizers([again], other, tensors)
    set_rng_state(states)
    step(other, again)
    assert all(torch.equal(named[k], other[k]) for k in named)
    assert [
        random.gauss(0, 1),
        random.random(),
        np.random.randn(),
        np.random.rand(),
        torch.rand(1).item(),
    ] == expected
    with pytest.raises(CheckpointError, match="has 'bias', which this model does not train"):
        restore_optimizers([again], {"weight": other["weight"]}, tensors)


def test_the_digest_of_the_code_follows_what_trains_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(shutil.copytree(Path(provenance.__file__).parents[1], tmp_path / "satjepa"))
    monkeypatch.setattr(provenance, "__file__", str(package / "training/provenance.py"))
    before = provenance.code_digest()
    (package / "metrics/pixels.py").write_text("# of no matter to training")
    assert provenance.code_digest() == before and len(before) == 64
    for name in (
        "models/adapter.py",
        "models/losses.py",
        "models/published/model.py",
        "training/loop.py",
    ):
        (package / name).write_text((package / name).read_text() + "\n")
        assert provenance.code_digest() != before
        before = provenance.code_digest()


def test_settings_from_before_a_key_was_there_are_completed() -> None:
    """With what its absence meant; a checkpoint of today differs from one of then only where it
    does something else.
    """
    today = load_params(REPO / "params.yaml", **{"train.jepa_share": 0.0}).as_dict()
    then = copy.deepcopy(today)
    del then["train"]["jepa_share"]
    old, new = (provenance.make_header(config, "s", "b") for config in (then, today))
    assert (
        "jepa_share" not in old["config"]["train"]
        and from_dict(provenance.settings_of(old)).train.jepa_share == 0
    )
    assert provenance.differences(old, new) == []
    today["train"]["jepa_share"] = 0.5
    (line,) = provenance.differences(old, provenance.make_header(today, "s", "b"))
    assert line == "train.jepa_share: 0.0 in the checkpoint, 0.5 here"
