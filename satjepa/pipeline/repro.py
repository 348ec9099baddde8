"""`dvc repro` with a line before each stage: which of how many, and how long it is still to take.

    python -m satjepa.pipeline.repro [what dvc repro takes]

    [7/23] train@full-0: 12 min so far, about 9 min to go

DVC runs in this process and prints what it always prints; its exit status is the one returned. What
each stage took is kept in .dvc/tmp/stage_seconds.json, and that is where the estimate comes from; a
stage that has not run here is estimated from stage_seconds.json beside this file, a copy of that of
the reference machine (2 CPU cores). Both are corrected by how this run compares with them so far.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from satjepa.paths import write_text

REFERENCE = Path(__file__).with_name("stage_seconds.json")
KEPT = "stage_seconds.json"  # in DVC's folder for what is of this machine
UP_TO_DATE = 20.0  # seconds that DVC takes at most to see that there is nothing to do
RUNS = "Running stage '%s':"  # as DVC's log has it
SKIPS = (
    "Stage '%s' didn't change, skipping",
    "Stage '%s' is cached - skipping run, checking out outputs",
)


@dataclass
class Seconds:
    """What stages take, by name. begun: of those that were stopped on the way, so far."""

    done: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    reference: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Seconds:
        """From the file of this machine and that of the reference machine; empty where absent."""
        reference = json.loads(REFERENCE.read_text())["done"] if REFERENCE.exists() else {}
        try:
            here = json.loads(path.read_text())
            return cls(dict(here["done"]), dict(here["begun"]), reference)
        except (OSError, ValueError, KeyError, TypeError):  # a hint only: begun anew
            return cls(reference=reference)

    def write(self, path: Path) -> None:
        """Keep what is of this machine, in one piece."""
        text = json.dumps({"done": self.done, "begun": self.begun}, indent=1)
        write_text(path, text + "\n")

    def of(self, name: str) -> float | None:
        """Seconds of a stage, or a guess from those of its matrix, or of all; None without any."""
        factor = self._machine()
        known = {key: factor * value for key, value in self.reference.items()} | self.done
        if name in known:
            return known[name]
        group = name.partition("@")[0]
        likes = [value for key, value in known.items() if key.partition("@")[0] == group]
        likes = likes or list(known.values())
        return sum(likes) / len(likes) if likes else None

    def _machine(self) -> float:
        """How much slower this machine is than the reference, by the stages that both ran."""
        both = self.done.keys() & self.reference.keys()
        theirs = sum(self.reference[name] for name in both)
        return sum(self.done[name] for name in both) / theirs if theirs > 0 else 1.0


class Progress(logging.Handler):
    """Listens to DVC's log; says before each stage where the run is, and times it."""

    def __init__(
        self, plan: Sequence[str], seconds: Seconds, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.waiting = list(plan)
        self.seconds = seconds
        self.now = now
        self.start = now()
        self.began = self.start
        self.running: str | None = None
        self.measured: dict[str, float] = {}  # the stages that ran here; estimates stay as read
        self.stopped: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """What DVC says of a stage: it runs, or it need not."""
        if record.msg == RUNS:
            self.close_stage()
            self._begin(str(record.args[0]))
        elif record.msg in SKIPS:
            self.close_stage()
            self._forget(str(record.args[0]))

    def close_stage(self, whole: bool = True) -> None:
        """The running stage, if there is one, has ended; `whole` says whether with success."""
        name = self.running
        if name is None:
            return
        self.running = None
        ended = self.measured if whole else self.stopped
        ended[name] = self.now() - self.began + self.seconds.begun.get(name, 0.0)

    def to_go(self) -> float | None:
        """Seconds that the running and the waiting stages are still to take; None if unknown."""
        names = [name for name in (self.running, *self.waiting) if name is not None]
        each = [(self.seconds.of(name), self.seconds.begun.get(name, 0.0)) for name in names]
        if any(whole is None for whole, _ in each):
            return None
        return self._pace() * sum(max(0.0, whole - begun) for whole, begun in each)

    def results(self) -> Seconds:
        """The seconds of this machine with those of this run."""
        begun = {k: v for k, v in self.seconds.begun.items() if k not in self.measured}
        done = self.seconds.done | self.measured
        return Seconds(done, begun | self.stopped, self.seconds.reference)

    def _pace(self) -> float:
        """How much slower this run is than what was expected of the stages it has ended."""
        expected = {name: self.seconds.of(name) for name in self.measured}
        known = {name: value for name, value in expected.items() if value}
        if not known:
            return 1.0
        return sum(self.measured[name] for name in known) / sum(known.values())

    def _begin(self, name: str) -> None:
        self._forget(name)
        self.running = name
        self.began = self.now()
        place = len(self.measured) + 1
        words = [f"{in_words(self.began - self.start)} so far"] if self.measured else []
        left = self.to_go()
        words.append(
            "time to go not yet known" if left is None else f"about {in_words(left)} to go"
        )
        print(f"[{place}/{place + len(self.waiting)}] {name}: {', '.join(words)}", flush=True)

    def _forget(self, name: str) -> None:
        if name in self.waiting:
            self.waiting.remove(name)


class Pace:
    """Says before each of several items that run side by side which of how many it is, and how long
    they are still to take at the pace so far. An item that DVC finds up to date tells nothing of
    the others.
    """

    def __init__(self, total: int, workers: int, now: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.workers = workers
        self.now = now
        self.began: dict[str, float] = {}
        self.seconds: list[float] = []  # of each that ran

    def begin(self, name: str) -> None:
        """An item is started; a single one says of itself how far it is."""
        self.began[name] = self.now()
        if self.total == 1:
            return
        left = "time to go not yet known"
        if self.seconds:
            each = sum(self.seconds) / len(self.seconds)
            rest = self.total - len(self.began) + 1
            left = f"about {in_words(math.ceil(rest / self.workers) * each)} to go"
        print(f"[{len(self.began)}/{self.total}] {name}: {left}", flush=True)

    def end(self, name: str) -> None:
        """An item has ended."""
        seconds = self.now() - self.began[name]
        if seconds > UP_TO_DATE:
            self.seconds.append(seconds)


def in_words(seconds: float) -> str:
    """A time as a reader wants it: 40 s, 12 min, 2 h 05 min."""
    if seconds < 89.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def plan_of(repo: Any, options: Any) -> list[str]:
    """The stages that `dvc repro` with these options is to run, in its order.

    Those that changed, and all that stand on them; DVC passes over one whose inputs turn out equal.
    A frozen stage and an import run no command.
    """
    from dvc.dvcfile import PROJECT_FILE
    from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

    chosen = collect_stages(
        repo, options.targets or [PROJECT_FILE], options.recursive, options.glob
    )
    graph = get_active_graph(repo.index.graph)
    single = options.single_item and not (options.pipeline or options.all_pipelines)
    steps = chosen
    if options.all_pipelines:
        steps = plan_repro(graph)
    elif not single:
        steps = plan_repro(graph, chosen, pipeline=options.pipeline, downstream=options.downstream)
    changed = set(repo.status())
    run = set()
    for stage in steps:
        stands_on = set() if single else run & set(graph.successors(stage))
        if stage.frozen and not stage.is_import:
            continue
        if options.force or stage.addressing in changed or stands_on:
            run.add(stage)
    return [stage.addressing for stage in steps if stage in run and stage.cmd]


def _prepare(options: Any) -> tuple[list[str], Path]:
    """The plan, and where the seconds of this machine are kept."""
    from dvc.repo import Repo

    logger = logging.getLogger("dvc")
    level = logger.level
    logger.setLevel(logging.ERROR)  # DVC will say it again when it runs
    try:
        with Repo() as repo:
            return plan_of(repo, options), Path(repo.tmp_dir) / KEPT
    finally:
        logger.setLevel(level)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `dvc repro` with these arguments; returns its exit status, 130 after Ctrl-C before it."""
    from dvc.cli import DvcParserError, parse_args
    from dvc.cli import main as dvc
    from dvc.exceptions import DvcException

    command = ["repro", *(sys.argv[1:] if argv is None else argv)]
    # the stages say `python`
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    try:
        options = parse_args(command)
        print("looking which stages are to be run", flush=True)
        plan, kept = _prepare(options)
    except KeyboardInterrupt:
        return 130
    except (DvcException, DvcParserError):
        return dvc(command)  # which says what is wrong
    if options.dry or not plan:
        return dvc(command)
    progress = Progress(plan, Seconds.read(kept))
    logger = logging.getLogger("dvc")
    logger.handlers.insert(0, progress)  # before DVC prints the same record
    try:
        status = dvc(command)
    finally:
        logger.removeHandler(progress)
    progress.close_stage(whole=status == 0)
    progress.results().write(kept)
    if status == 0 and (count := len(progress.measured)):
        took = in_words(progress.now() - progress.start)
        print(f"{count} stage{'s' if count > 1 else ''} in {took}")
    return status


if __name__ == "__main__":
    sys.exit(main())
