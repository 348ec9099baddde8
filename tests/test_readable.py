"""What others may read is for the umask to say, not for the library that writes."""

import ast
import os
import stat

import pytest
import torch
from reach import REPO
from safetensors.torch import save_file

from satjepa.demo.tiny_sd3 import build_vae, save_pipeline
from satjepa.paths import readable


@pytest.fixture(params=[0o022, 0o002, 0o077])
def new_file(request):
    """The permissions of a new file under three umasks."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def modes(folder):
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_files_below_a_folder_are_as_the_umask_says(tmp_path, new_file):
    (tmp_path / "a").mkdir()
    save_file({"a": torch.ones(2)}, tmp_path / "a/a.safetensors")
    (tmp_path / "b.txt").write_text("b")
    readable(tmp_path)
    assert modes(tmp_path) == {new_file}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "a.safetensors", "b.txt"]


def test_a_saved_backbone_is_as_the_umask_says(tmp_path, new_file):
    vae = build_vae((8, 8, 8, 8), 16)
    save_pipeline(tmp_path, vae, vae)  # any model will do: what counts is who writes it
    assert modes(tmp_path) == {new_file} and len(list(tmp_path.rglob("*.safetensors"))) == 2


WRITERS = {"save_file", "save_pretrained", "save_model", "NamedTemporaryFile", "mkstemp"}


def test_whoever_writes_through_a_temporary_file_sets_the_mode():
    """A function that calls one of WRITERS calls `readable` or `replaced`, too."""
    callers = {}
    for path in (REPO / "satjepa").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                calls = [c.func for c in ast.walk(node) if isinstance(c, ast.Call)]
                names = {getattr(f, "attr", getattr(f, "id", "")) for f in calls}
                if names & WRITERS and any(_of_a_model(c) for c in calls):
                    callers[f"{path.name}:{node.name}"] = names
    callers.pop("request.py:check_folder")  # its file is gone before anyone could read it
    assert len(callers) >= 4
    assert not [caller for caller, names in callers.items() if not names & {"readable", "replaced"}]


def _of_a_model(call: ast.expr) -> bool:
    """Not a tokenizer's, which writes text."""
    return "tokenizer" not in ast.unparse(call) and ast.unparse(call).split(".")[-1] in WRITERS
