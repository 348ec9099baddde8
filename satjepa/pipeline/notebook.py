"""What every notebook begins with and ends in: parameters and provenance, and tables that a reader
can read.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satjepa.config import Params, load_params
from satjepa.config.yaml12 import loads
from satjepa.paths import root

if TYPE_CHECKING:
    import pandas as pd

PACKAGES = ("torch", "diffusers", "transformers", "peft", "accelerate", "xarray", "rasterio", "dvc")


def begin(arm: str | None = None, **overrides: Any) -> tuple[Params, Path]:
    """Load the parameters and print what this run stands on: versions, device, git revision, data
    version.
    """
    import torch

    params = load_params(arm=arm, **overrides)
    home = root()
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"python {platform.python_version()} · "
        + " · ".join(f"{name} {_version(name)}" for name in PACKAGES)
    )
    print(f"device: {device}\ncode:   {_git(home)}\ndata:   {_data_version(home)}")
    return params, home


def table(
    rows: Sequence[dict[str, Any]] | pd.DataFrame,
    columns: Sequence[str] | None = None,
    digits: int = 3,
) -> pd.DataFrame:
    """Rows as a data frame to display: the chosen columns that exist, rounded to `digits`."""
    import pandas as pd

    frame = pd.DataFrame(rows)
    frame = frame if columns is None else frame[[c for c in columns if c in frame]]
    return frame.round(digits)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _git(home: Path) -> str:
    """The revision without asking whether the tree is dirty: executed notebooks must be equal for
    equal runs.
    """
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD:satjepa"],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        f"satjepa/ tree {found.stdout.strip()}" if found.returncode == 0 else "not a git checkout"
    )


def _data_version(home: Path) -> str:
    pointer = home / "data.dvc"
    return "no data.dvc" if not pointer.exists() else loads(pointer.read_text())["outs"][0]["md5"]


def parameter_table(model: Any) -> pd.DataFrame:
    """Parameters of each part of a model: all of them, and those that train."""
    import pandas as pd

    rows = {}
    for name, part in model.named_children():
        sizes = [(p.numel(), p.requires_grad) for p in part.parameters()]
        rows[name] = {
            "parameters": sum(n for n, _ in sizes),
            "trained": sum(n for n, trains in sizes if trains),
        }
    frame = pd.DataFrame(rows).T
    frame.loc["total"] = frame.sum()
    return frame


class Printer:
    """A log that prints its means `lines` times in a run and keeps them; a bar on stderr shows rate
    and time to go.
    """

    def __init__(self, steps: int, lines: int = 40) -> None:
        from tqdm import tqdm

        self.steps = steps
        self.every = max(1, steps // lines)
        self.seen: list[dict[str, float]] = []
        self.rows: list[dict[str, float]] = []
        self.bar = tqdm(total=steps, unit="step")

    def __call__(self, step: int, parts: dict[str, float]) -> None:
        self.bar.update(1)
        self.seen.append(parts)
        if step % self.every and step != self.steps:
            return
        means = {}
        for name in parts:
            means[name] = sum(step_parts[name] for step_parts in self.seen) / len(self.seen)
        self.rows.append({"step": step, **means})
        self.seen = []
        shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        print(f"{step}/{self.steps} {shown}", flush=True)
        if step == self.steps:
            self.bar.close()

    def curve(self) -> pd.DataFrame:
        """The printed means, one row a line, over `step`."""
        import pandas as pd

        return pd.DataFrame(self.rows)
