"""The same pipeline with another params file: `python -m satjepa.pipeline.experiment
params.table.yaml --minutes 30`.

DVC knows one params.yaml. So each seed of an experiment is a second checkout, .work/<name>-<seed>,
laid out from this work tree with that file as its params.yaml, with that seed alone, and with the
same DVC cache: what has been computed with equal inputs is not computed again. A run stopped by the
clock goes on where it was. When a seed is done, its parameters, dvc.lock, table and figures are
copied to experiments/<name>/seed-<seed>, with the machine and the time it took, and
experiments/<name>/table.csv is made anew from all seeds that are there. So seeds may be run one at
a time, on different days and machines (`--seeds 1`), with the same code: combining what was made
with other code is refused.
"""

import argparse
import csv
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from satjepa.config import ConfigError, load_params
from satjepa.paths import root

NOT_DONE = 75  # EX_TEMPFAIL: run the same command again
# imported first: a frozen stage that dvc.lock does not know looks at its dependencies, in any order
DATA = "data.dvc"
SHARED = "embeddings"  # the stage that all arms and seeds stand on
POLL = 0.2  # seconds
RESULTS = (
    "params.yaml",
    "dvc.lock",
    "reports/table.csv",
    "reports/table.settings.json",
    "reports/figures",
)
CODE = ("satjepa/", "notebooks/", "assets/")  # what the seeds of one table must share


class ExperimentError(RuntimeError):
    """A seed that the parameters do not have, or seeds that do not belong into one table."""


def seeds_of(params: str) -> list[int]:
    """`ablate.seeds` of the text of a params file."""
    return list(yaml.safe_load(params)["ablate"]["seeds"])


def with_seed(params: str, seed: int) -> str:
    """The text of a params file with `ablate.seeds` cut down to one, its comments gone.
    ExperimentError for another.
    """
    values = yaml.safe_load(params)
    if seed not in (known := values["ablate"]["seeds"]):
        raise ExperimentError(f"seed {seed} is not one of ablate.seeds, {known}")
    values["ablate"]["seeds"] = [seed]
    return yaml.safe_dump(values, sort_keys=False)


def lay_out(folder: Path, params: str) -> None:
    """Bring `folder` up to this work tree (what git tracks or would), with the text `params` as its
    params.yaml.

    The folder is a git and a DVC repository of its own on the cache of this one; its results and
    its dvc.lock stay.
    """
    here = root()
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=here, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        source = here / name
        target = folder / name
        if source.is_file() and name not in RESULTS:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    cache = json.dumps(str(here / ".dvc/cache"))
    (folder / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    (folder / "params.yaml").write_text(params)


def repro(folder: Path, minutes: float | None = None, workers: int = 1) -> int:
    """`dvc repro` in the folder, stopped after `minutes`; returns its exit status, or NOT_DONE if
    stopped.

    With several workers, the arms and seeds of the matrix stages run side by side, each on its
    share of the cores.
    """
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    if status := _run(folder, [["repro", DATA]], 1, deadline):
        return status
    if workers > 1:
        status = _run(folder, [["repro", SHARED]], 1, deadline)
        items = [
            ["--wait-for-lock", "repro", "--single-item", name] for name in _matrix_items(folder)
        ]
        status = status or _run(folder, items, workers, deadline)
        if status:
            return status
    return _run(folder, [["repro"]], 1, deadline)


def _matrix_items(folder: Path) -> list[str]:
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    names = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env=_environment()
    ).stdout
    return [name for name in names.split() if "@" in name]


def _environment(workers: int = 1) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "SATJEPA_PARAMS"}
    if workers > 1:
        env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    return env | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    }  # the stages say `python`


def _run(folder: Path, commands: list[list[str]], workers: int, deadline: float) -> int:
    """Run dvc commands, `workers` at a time; the first status that is not 0 ends them all, as the
    deadline does.
    """
    waiting = list(commands)
    running = []
    status = 0
    env = _environment(min(workers, len(commands)))
    try:
        while not status and (waiting or running):
            while waiting and len(running) < workers:
                command = [sys.executable, "-m", "dvc", *waiting.pop(0)]
                running.append(
                    subprocess.Popen(
                        command,
                        cwd=folder,
                        env=env,
                        start_new_session=True,
                        preexec_fn=_hear_interrupts,
                    )
                )
            time.sleep(POLL)
            status = next((code for process in running if (code := process.poll())), 0)
            running = [process for process in running if process.poll() is None]
            if not status and running and time.monotonic() > deadline:
                status = NOT_DONE
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGINT)
        for process in running:
            process.wait()
    return status


def _hear_interrupts() -> None:
    """A job started in the background of a shell ignores SIGINT, and so would what it starts: undo
    that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def collect(folder: Path, target: Path, seconds: list[float], workers: int) -> None:
    """Copy the results to `target` and write down what they were made with, and what each run
    took.
    """
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
        with open(target / "costs.csv", "w", newline="") as file:
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
    (target / "machine.yaml").write_text(yaml.safe_dump(machine, sort_keys=False))


def costs(folder: Path) -> list[dict[str, str | float | None]]:
    """What each run took: trained parameters, minutes of training, seconds a patch of each
    forecast.

    From the files beside the scores that DVC does not look at, so only of runs that were run here.
    """
    rows: list[dict[str, str | float | None]] = []
    for timing in sorted(folder.glob("runs/**/timing.csv")):
        facts = timing.with_name("run.json")
        run = json.loads(facts.read_text()) if facts.exists() else {}
        with open(timing, newline="") as file:
            seen = list(csv.DictReader(file))
        for model in dict.fromkeys(row["model"] for row in seen):
            seconds = [float(row["seconds_per_patch"]) for row in seen if row["model"] == model]
            rows.append({
                "run": str(timing.parent.relative_to(folder / "runs")), "model": model,
                "trained_parameters": run.get("trained_parameters", 0),
                "training_minutes": round(run["seconds"] / 60, 1) if "seconds" in run else 0,
                "seconds_per_patch": round(sum(seconds) / len(seconds), 4),
            })  # fmt: skip
    return rows


def combine(target: Path) -> list[int]:
    """Write table.csv and table.settings.json of an experiment from those of its seeds; returns the
    seeds.

    Rows are combined by `satjepa.evaluation.table.combine_seeds`. ExperimentError where code or
    parameters of two seeds differ.
    """
    from satjepa.evaluation.results import over_seeds
    from satjepa.evaluation.table import write_table

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
    stages = yaml.safe_load((folder / "dvc.lock").read_text())["stages"].items()
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


def run_seed(name: str, params: str, seed: int, minutes: float | None, workers: int) -> int:
    """One seed of an experiment, from its checkout to its results; returns the status of
    `repro`.
    """
    folder = root() / ".work" / f"{name}-{seed}"
    lay_out(folder, with_seed(params, seed))
    clock = folder / ".dvc/tmp/seconds.json"
    seconds = json.loads(clock.read_text()) if clock.exists() else []
    start = time.monotonic()
    status = repro(folder, minutes, workers)
    seconds.append(time.monotonic() - start)
    clock.parent.mkdir(parents=True, exist_ok=True)
    clock.write_text(json.dumps(seconds))
    if status == 0:
        collect(folder, root() / "experiments" / name / f"seed-{seed}", seconds, workers)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status: 0 done, 75 to be called again, 1 where older seeds
    do not belong to those that were run, else what dvc said.

    A seed that the file does not have is refused before anything runs, as any wrong argument is
    (exit status 2).
    """
    parser = argparse.ArgumentParser(
        prog="python -m satjepa.pipeline.experiment", description=__doc__.split("\n")[0]
    )
    parser.add_argument("params", type=Path, help="params.<name>.yaml")
    parser.add_argument(
        "--seeds", type=int, nargs="+", help="only these of the file's ablate.seeds"
    )
    parser.add_argument("--minutes", type=float, help="stop after so long; the next call goes on")
    parser.add_argument("--workers", type=int, default=1, help="arms that run side by side")
    args = parser.parse_args(argv)
    try:
        load_params(args.params)
        name = args.params.stem.removeprefix("params.")
        params = args.params.read_text()
        seeds = args.seeds or seeds_of(params)
        for seed in seeds:
            with_seed(params, seed)
    except ExperimentError as error:
        parser.error(f"argument --seeds: {error}")
    except (ConfigError, OSError) as error:
        parser.error(str(error))
    start = time.monotonic()
    target = root() / "experiments" / name
    for seed in seeds:
        left = None if args.minutes is None else args.minutes - (time.monotonic() - start) / 60
        status = run_seed(name, params, seed, left, args.workers)
        if status == NOT_DONE:
            print(
                f"not done after {args.minutes:g} minutes: the same command goes on from here",
                file=sys.stderr,
            )
        if status:
            return status
        try:
            outcome = f"{target / 'table.csv'} is of seeds {', '.join(map(str, combine(target)))}"
        except (
            ExperimentError
        ) as error:  # of what was run before; the seeds to come may take its place
            outcome = f"there is no table, as {error}: run the older one anew, or remove it"
            status = 1
            for name in ("table.csv", "table.settings.json"):
                (target / name).unlink(missing_ok=True)
        print(f"seed {seed} is done; {outcome}")
    return status


if __name__ == "__main__":
    sys.exit(main())
