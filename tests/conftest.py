"""What every test shares: the folder beside the repository, and one thread per test run."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Read by the numeric libraries when they are first imported, which no test has done yet.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Keep torch on one thread, without importing it for tests that do not use it."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _the_results_of_the_repository_stay() -> Iterator[None]:
    """No test writes into what the pipeline has made here; not asked while the pipeline runs."""
    before = _results()
    yield
    lock = REPO / ".dvc/tmp/rwlock"
    if not lock.is_file() or lock.read_text() in ("", "{}"):
        assert _results() == before


def _results() -> dict[Path, int]:
    """When each file of the pipeline's results was written."""
    folders = [REPO / name for name in ("artifacts", "runs", "experiments", "assets", "reports")]
    files = (path for folder in folders for path in folder.rglob("*"))
    return {path: path.stat().st_mtime_ns for path in files if path.is_file()}


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model hub is not asked: where nothing answers, that takes half a minute."""
    # the environment variable is read once, when the library is imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository: golden vectors, real scenes, LPIPS trunks."""
    folder = REPO.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: golden vectors and real scenes are not at hand")
    return folder
