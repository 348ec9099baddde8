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
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from satjepa.config import ConfigError, load_params, yaml12
from satjepa.config.files import read_params
from satjepa.paths import SHIPPED_MODEL, root, write_text
from satjepa.pipeline.experiment_results import RESULTS, ExperimentError, collect, combine
from satjepa.pipeline.repro import Pace

NOT_DONE = 75  # EX_TEMPFAIL: run the same command again
# imported first: a frozen stage that dvc.lock does not know looks at its dependencies, in any order
DATA = "data.dvc"
SHARED = "embeddings"  # the stage that all arms and seeds stand on
PHASES = (("train", "baselines"), ("score", "score_baselines"))  # whose items may run side by side
REPRO = "satjepa.pipeline.repro"  # of the package in the folder
POLL = 0.2  # seconds


def with_seed(params: Path, seed: int) -> str:
    """The text of a params file, an overlay merged into its base, with `seeds` cut down to one.

    ExperimentError for a seed that the file does not have.
    """
    values = read_params(params)
    if seed not in values["seeds"]:
        raise ExperimentError(f"seed {seed} is not one of seeds, {values['seeds']}")
    values["seeds"] = [seed]
    return yaml12.dumps(values)


def lay_out(folder: Path, params: str) -> None:
    """Bring `folder` up to this work tree (what git tracks or would), with the text `params` as its
    params.yaml; code and notebooks that this one no longer has are deleted there.

    The folder is a git and a DVC repository of its own on the cache of this one; its results and
    its dvc.lock stay.
    """
    here = root()
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=here, capture_output=True, text=True, check=True).stdout
    listed = {name for name in names.split("\0") if (here / name).is_file()}
    for file in [*(folder / "satjepa").rglob("*.py"), *(folder / "notebooks").glob("*.ipynb")]:
        if file.relative_to(folder).as_posix() not in listed:
            file.unlink()
    for name in sorted(listed):
        source = here / name
        target = folder / name
        made_here = name in RESULTS or (name.startswith(f"{SHIPPED_MODEL}/") and target.exists())
        if not made_here:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    cache = json.dumps(str(here / ".dvc/cache"))
    write_text(folder / ".dvc/config.local", f"[cache]\n    dir = {cache}\n")
    write_text(folder / "params.yaml", params)


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
        for stages in PHASES:
            names = _matrix_items(folder, stages)
            items = [["--wait-for-lock", "repro", "--single-item", name] for name in names]
            status = status or _run(folder, items, workers, deadline)
        if status:
            return status
    return _run(folder, [["repro"]], 1, deadline)


def _matrix_items(folder: Path, stages: Sequence[str]) -> list[str]:
    """The items of some matrix stages, such as train@no_jepa-0."""
    command = [sys.executable, "-m", "dvc", "stage", "list", "--name-only"]
    names = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env=_environment()
    ).stdout
    return [name for name in names.split() if name.split("@")[0] in stages and "@" in name]


def _environment(workers: int = 1) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name != "SATJEPA_PARAMS"}
    if workers > 1:
        env["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // workers))
    return env | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    }  # the stages say `python`


def _command(arguments: list[str]) -> list[str]:
    """A dvc command; `dvc repro` alone in its folder says before each stage how far it is.

    Beside others it is plain: they hold DVC's lock, which asking for the plan takes, too.
    """
    if arguments[0] == "repro":
        return [sys.executable, "-m", REPRO, *arguments[1:]]
    return [sys.executable, "-m", "dvc", *arguments]


def _run(folder: Path, commands: list[list[str]], workers: int, deadline: float) -> int:
    """Run dvc commands, `workers` at a time; the first status that is not 0 ends them all, as the
    deadline does.
    """
    waiting = list(commands)
    running: dict[subprocess.Popen, str] = {}  # with the stage, or the like, that it runs
    status = 0
    workers = min(workers, len(commands))
    env = _environment(workers)
    pace = Pace(len(commands), workers)
    try:
        while not status and (waiting or running):
            while waiting and len(running) < workers:
                arguments = waiting.pop(0)
                pace.begin(arguments[-1])
                process = subprocess.Popen(
                    _command(arguments),
                    cwd=folder,
                    env=env,
                    start_new_session=True,
                    preexec_fn=_hear_interrupts,
                )
                running[process] = arguments[-1]
            time.sleep(POLL)
            for process in list(running):
                code = process.poll()
                if code is not None:
                    pace.end(running.pop(process))
                    status = status or code
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


def run_seed(name: str, params: Path, seed: int, minutes: float | None, workers: int) -> int:
    """One seed of an experiment, from checkout to results; returns the status of `repro`."""
    folder = root() / ".work" / f"{name}-{seed}"
    lay_out(folder, with_seed(params, seed))
    clock = folder / ".dvc/tmp/seconds.json"
    seconds = json.loads(clock.read_text()) if clock.exists() else []
    start = time.monotonic()
    status = repro(folder, minutes, workers)
    seconds.append(time.monotonic() - start)
    write_text(clock, json.dumps(seconds))
    if status == 0:
        collect(folder, root() / "experiments" / name / f"seed-{seed}", seconds, workers)
    return status


def run_experiment(
    params: Path, seeds: Sequence[int], minutes: float | None = None, workers: int = 1
) -> int:
    """One seed after the other, each time the table of all that are there; returns the exit status:
    0 done, 75 to be called again, 1 where older seeds do not belong to those that were run, else
    what dvc said.
    """
    name = params.stem.removeprefix("params.")
    target = root() / "experiments" / name
    start = time.monotonic()
    status = 0
    for seed in seeds:
        left = None if minutes is None else minutes - (time.monotonic() - start) / 60
        status = run_seed(name, params, seed, left, workers)
        if status == NOT_DONE:
            print(f"not done after {minutes:g} minutes: the same command goes on", file=sys.stderr)
        if status:
            return status
        status = _tell_of_table(target, seed)
    return status


def _tell_of_table(target: Path, seed: int) -> int:
    """Make the table of all seeds; 1 where there is none, as the others were made by other code."""
    try:
        seeds = ", ".join(map(str, combine(target)))
        print(f"seed {seed} is done; {target / 'table.csv'} is of seeds {seeds}")
        return 0
    except ExperimentError as error:  # the seeds to come may take the place of the older one
        for table in ("table.csv", "table.settings.json"):
            (target / table).unlink(missing_ok=True)
        print(
            f"seed {seed} is done; there is no table, as {error}: run the older one anew, or "
            "remove it"
        )
        return 1


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status.

    A seed that the file does not have is refused before anything runs, as any wrong argument is
    (exit status 2).
    """
    parser = argparse.ArgumentParser(
        prog="python -m satjepa.pipeline.experiment", description=__doc__.split("\n")[0]
    )
    parser.add_argument("params", type=Path, help="params.<name>.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", help="only these of the file's seeds")
    parser.add_argument("--minutes", type=float, help="stop after so long; the next call goes on")
    parser.add_argument("--workers", type=int, default=1, help="arms that run side by side")
    args = parser.parse_args(argv)
    try:
        seeds = args.seeds or list(load_params(args.params).seeds)
        for seed in seeds:
            with_seed(args.params, seed)
    except ExperimentError as error:
        parser.error(f"argument --seeds: {error}")
    except (ConfigError, OSError) as error:
        parser.error(str(error))
    return run_experiment(args.params, seeds, args.minutes, args.workers)


if __name__ == "__main__":
    sys.exit(main())
