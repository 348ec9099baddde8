"""Where the repository is: one answer for a notebook in notebooks/, papermill, DVC and the
shell.
"""

from pathlib import Path

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
        f"neither {here} nor a folder above it is a checkout of satjepa (with "
        f"{' and '.join(CHECKOUT)}): run this inside one"
    )
