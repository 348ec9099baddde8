"""A checkout at smoke size, in which DVC can be run and files can be changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml
from reach import REPO

from satjepa.config.files import read_yaml, with_keys
from satjepa.pipeline.experiment import lay_out

SMOKE = read_yaml(REPO / "tests/pipeline/smoke.yaml")
# where the pipeline ends; beside it, notebooks of the shipped model: minutes, whatever its size
ENDS = ("demo_model", "ablations", "figures", "claims")
SHOWS = ("one_patch", "rollout", "own_region", "words")


class Scratch:
    """The work tree laid out anew in a folder, at smoke size, nothing run yet, with a DVC cache of
    its own: everything must be computed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lay_out(folder, (REPO / "params.yaml").read_text())
        (folder / ".dvc/config.local").unlink()
        for name, changes in SMOKE.items():
            self.set(name, changes)

    def dvc(self, *arguments: str) -> str:
        """The output of a dvc command that must succeed."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        command = [sys.executable, "-m", "dvc", *arguments]
        env = {name: value for name, value in os.environ.items() if name != "SATJEPA_PARAMS"} | {
            "PATH": path
        }
        done = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (
            f"dvc {' '.join(arguments)}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
        return done.stdout

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`; the stages that ran."""
        return set(
            re.findall(r"^Running stage '(.+)':$", self.dvc("repro", *arguments), re.MULTILINE)
        )

    def set(self, name: str, changes: dict) -> None:
        """Change dotted keys of a YAML file."""
        values = with_keys(read_yaml(self.folder / name), changes)
        (self.folder / name).write_text(yaml.safe_dump(values, sort_keys=False))

    def lock(self) -> str:
        """The bytes that dvc.lock promises."""
        return (self.folder / "dvc.lock").read_text()
