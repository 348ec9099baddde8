"""What an experiment leaves: of each seed its parameters, lock, table, figures, costs and machine;
of all seeds one table.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from satjepa.config import load_params, yaml12
from satjepa.evaluation.results import ablation_title, is_answer, over_seeds
from satjepa.evaluation.score import OURS
from satjepa.evaluation.table import arm_title, write_table
from satjepa.paths import REPORTS, RUNS, replaced, write_text

RESULTS = (
    "params.yaml",
    "dvc.lock",
    f"{REPORTS}/table.csv",
    f"{REPORTS}/table.settings.json",
    f"{REPORTS}/figures",
)


CODE = ("satjepa/", "notebooks/", "assets/")  # what the seeds of one table must share


class ExperimentError(RuntimeError):
    """A seed that the parameters do not have, or seeds that do not belong into one table."""


def collect(folder: Path, target: Path, seconds: list[float], workers: int) -> None:
    """Copy the results to `target`; write down what they were made with, and what runs took."""
    import torch

    for name in RESULTS:
        source = folder / name
        copy = target / Path(name).name
        if source.is_dir():
            shutil.copytree(source, copy, dirs_exist_ok=True)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    if rows := costs(folder):
        with replaced(target / "costs.csv") as part, open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    machine = {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "workers": workers,
        "minutes": round(sum(seconds) / 60, 1),
        "parts": len(seconds),
    }
    write_text(target / "machine.yaml", yaml12.dumps(machine))


def costs(folder: Path) -> list[dict[str, str | float | None]]:
    """What each run took: trained parameters, minutes of training, seconds a patch of each
    forecast.

    From the files beside the scores that DVC does not look at, so only of runs that were run here.
    """
    rows: list[dict[str, str | float | None]] = []
    ablations = load_params(folder / "params.yaml").arms_of("ablation")
    for timing in sorted((folder / RUNS).glob("*/timing.csv")):
        facts = timing.with_name("run.json")
        run = json.loads(facts.read_text()) if facts.exists() else {}
        with open(timing, newline="") as file:
            seen = list(csv.DictReader(file))
        for model in dict.fromkeys(row["model"] for row in seen):
            name = _in_table(model, timing.parent.name.rpartition("-")[0], ablations)
            if name is None:
                continue
            seconds = [float(row["seconds_per_patch"]) for row in seen if row["model"] == model]
            rows.append(
                {
                    "run": timing.parent.name,
                    "model": name,
                    "trained_parameters": run.get("trained_parameters", 0),
                    "training_minutes": round(run["seconds"] / 60, 1) if "seconds" in run else 0,
                    "seconds_per_patch": round(sum(seconds) / len(seconds), 4),
                }
            )
    return rows


def _in_table(model: str, arm: str, ablations: list[str]) -> str | None:
    """The name of a run's row in the results table, which has an ablation's ensemble only."""
    if arm not in ablations:
        return model
    if not is_answer(model):
        return None
    samples = model.removeprefix(OURS).removeprefix(", mean of ")
    return ablation_title(arm_title(arm), int(samples or 1))


def combine(target: Path) -> list[int]:
    """Write table.csv and table.settings.json of an experiment from those of its seeds; returns the
    seeds.

    Rows are combined by `satjepa.evaluation.table.combine_seeds`. ExperimentError where code or
    parameters of two seeds differ.
    """
    seeds = sorted(int(folder.name.removeprefix("seed-")) for folder in target.glob("seed-*"))
    folders = [target / f"seed-{seed}" for seed in seeds]
    made_with = [_made_with(folder) for folder in folders]
    for folder, found in zip(folders, made_with, strict=True):
        if odd := [
            name for name in made_with[0] | found if made_with[0].get(name) != found.get(name)
        ]:
            raise ExperimentError(
                f"{folder} and {folders[0]} do not belong together: they differ in {', '.join(odd)}"
            )
    rows = over_seeds([folder / "table.csv" for folder in folders])
    write_table(
        rows, target / "table.csv", json.loads((folders[0] / "table.settings.json").read_text())
    )
    return seeds


def _made_with(folder: Path) -> dict[str, Any]:
    """What the rows of a seed depend on beside the seed, by its dvc.lock: code and parameters of
    the matrix stages.

    Not what made text embeddings and latents: their last bits differ from machine to machine.
    """
    stages = yaml12.loads((folder / "dvc.lock").read_text())["stages"].items()
    matrix = [stage for name, stage in stages if "@" in name]
    files = {
        dep["path"]: dep["md5"]
        for stage in matrix
        for dep in stage["deps"]
        if dep["path"].startswith(CODE)
    }
    return files | {
        key: value for stage in matrix for key, value in stage["params"]["params.yaml"].items()
    }
