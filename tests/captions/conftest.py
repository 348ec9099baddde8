"""What the tests of captions share: tiny text encoders."""

from pathlib import Path

import pytest
from caption_corpus import CORPUS

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
