"""Where the repository is: one answer for a notebook in notebooks/, papermill, DVC and the
shell; and how a file is replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of the stages before training: scenes, cubes, split, captions, text, latents.
ARTIFACTS = "artifacts"
SCENES = f"{ARTIFACTS}/scenes"
CUBES = f"{ARTIFACTS}/cubes"
SPLIT = f"{ARTIFACTS}/split.json"
RUNS = "runs"
SCRATCH = f"{RUNS}/scratch"  # of a run by hand
REPORTS = "reports"
SHIPPED_MODEL = "assets/demo_model"


def run_folder(arm: str, seed: int) -> Path:
    """Where an arm of params.yaml, ours or a baseline, leaves its model, log and scores."""
    return root() / RUNS / f"{arm}-{seed}"


CHECKOUT = ("dvc.yaml", "satjepa/paths.py")  # the pipeline, and the package that it runs


def is_checkout(folder: Path) -> bool:
    """Whether a folder is a checkout of satjepa: another project has a dvc.yaml, too."""
    return all((folder / name).is_file() for name in CHECKOUT)


def root(start: str | Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current folder) that is a checkout of
    satjepa.

    With no `start` and no checkout above the current folder, the one this package is imported from
    is meant: so `satjepa forecast` works from any folder, that of another DVC project, too. Raises
    FileNotFoundError where neither is one.
    """
    here = Path.cwd() if start is None else Path(start).resolve()
    candidates = [here, *here.parents]
    if start is None:
        candidates.append(Path(__file__).resolve().parents[1])
    for folder in candidates:
        if is_checkout(folder):
            return folder
    raise FileNotFoundError(
        f"neither {here} nor a folder above it is a checkout of satjepa, with "
        f"{' and '.join(CHECKOUT)}; run this inside one"
    )


@contextmanager
def replaced(path: str | Path, sync: bool = False) -> Iterator[Path]:
    """Write a file beside `path`, then rename it over `path`: whoever reads sees the old file or
    the new one, never a part.

        with replaced("scores.csv") as part:
            table.to_csv(part)

    Where the block raises, the part is removed and the old file stays. A link is followed, folders
    are made, and the permissions are those that the umask gives a new file, whatever the writer
    chose. The part's name is hidden, ends in `.part` and is short, so that it fits wherever `path`
    does; writers that choose a format or add a suffix by the name must be told the format.

    sync: returns only when the bytes and the new name are on the disk, for what a crash of the
    machine must not lose. Raises OSError, also for what is no regular file, such as /dev/null.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is no regular file and cannot be replaced: name another file")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:40]}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(part.stat().st_mode)  # what the umask leaves
    part.unlink()
    try:
        yield part
        part.chmod(mode)
        if sync:
            to_disk(part)
        os.replace(part, target)
        if sync:
            to_disk(target.parent)  # else the name may be lost though the bytes are not
    finally:
        part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text, UTF-8, by `replaced`."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


def to_disk(path: Path) -> None:
    """Return when the bytes of a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def readable(folder: str | Path) -> None:
    """Give every file below `folder` the permissions that the umask gives a new one: those who
    write safetensors go through a temporary file, which its owner alone may read.
    """
    folder = Path(folder)
    probe = folder / f".{os.getpid()}.mode"
    os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)
