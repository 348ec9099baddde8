"""Where the repository is: one answer for a notebook in notebooks/, papermill, DVC and the
shell.
"""

from pathlib import Path

# Of the stages before training: scenes, cubes, split, captions, text, latents.
ARTIFACTS = "artifacts"
RUNS = "runs"


def run_folder(arm: str, seed: int) -> Path:
    """Where an arm of params.yaml, ours or a baseline, leaves its model, log and scores."""
    return root() / RUNS / f"{arm}-{seed}"


def root(start: str | Path | None = None) -> Path:
    """The nearest folder at or above `start` (default: the current folder) that holds dvc.yaml.

    With no `start` and no dvc.yaml above the current folder, the checkout this package is imported
    from is meant: so `satjepa forecast` works from any folder. Raises FileNotFoundError where
    neither holds a dvc.yaml.
    """
    here = Path.cwd() if start is None else Path(start).resolve()
    candidates = [here, *here.parents]
    if start is None:
        candidates.append(Path(__file__).resolve().parents[1])
    for folder in candidates:
        if (folder / "dvc.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"no dvc.yaml in {here} or above it; run this inside a checkout of satjepa"
    )
