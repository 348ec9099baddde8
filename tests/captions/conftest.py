"""What the tests of captions share: tiny text encoders, a small EarthDial and its import."""

import shutil
from pathlib import Path

import pytest
import torch
from caption_corpus import CORPUS
from earthdial_files import write_checkpoint

from satjepa.captions.earthdial import import_earthdial
from satjepa.captions.embeddings import TextEncoders
from satjepa.demo import text_encoders


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    text_encoders.train_tokenizers(CORPUS, path)
    text_encoders.build_tiny_text_encoders(path, seed=0)
    return path


@pytest.fixture(scope="module")
def encoders(folder: Path) -> TextEncoders:
    return TextEncoders.from_pretrained(folder)


@pytest.fixture(scope="module")
def earthdial_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("earthdial")


@pytest.fixture(scope="module")
def native(earthdial_home: Path) -> torch.nn.Module:
    return write_checkpoint(earthdial_home / "theirs")


@pytest.fixture(scope="module")
def imported(earthdial_home: Path, native: torch.nn.Module) -> Path:
    return import_earthdial(earthdial_home / "theirs", earthdial_home / "ours", progress=False)


@pytest.fixture
def source(earthdial_home: Path, native: torch.nn.Module, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(earthdial_home / "theirs", tmp_path / "source"))
