"""What others may read is for the umask to say, not for the library that writes."""

import os
import stat

import pytest
import torch
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
