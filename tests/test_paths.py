"""Which folder is the repository: ours, and not another project that DVC runs as well."""

from pathlib import Path

import pytest
from reach import REPO, as_checkout

from satjepa.paths import root


def test_root_is_the_checkout_at_or_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours = as_checkout(tmp_path / "ours")
    (ours / "a/b").mkdir(parents=True)
    assert root(ours / "a/b") == root(str(ours)) == ours
    monkeypatch.chdir(ours / "a")
    assert root() == ours
    (ours / "dvc.yaml").unlink()
    assert root() == REPO  # the checkout this package is imported from
    with pytest.raises(FileNotFoundError, match=r"checkout.*dvc\.yaml and satjepa/paths\.py"):
        root(ours)


def test_another_project_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Inside a folder with a dvc.yaml and a params.yaml of its own; ours may hold it, or not."""
    theirs = tmp_path / "ours/data/theirs"
    theirs.mkdir(parents=True)
    (theirs / "dvc.yaml").write_text("stages: {train: {cmd: satjepa forecast a.tif}}\n")
    (theirs / "params.yaml").write_text("lr: 1\n")
    monkeypatch.chdir(theirs)
    assert root() == REPO
    as_checkout(tmp_path / "ours")
    assert root() == tmp_path / "ours"


def test_this_checkout_is_one():
    assert root(REPO / "satjepa/data") == REPO
