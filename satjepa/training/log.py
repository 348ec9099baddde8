"""What a training run tells: log.csv, run.json, a bar or lines for the reader; and how it is asked
to stop.
"""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from satjepa.paths import root, write_text

if TYPE_CHECKING:
    from satjepa.config.baselines import Fit
    from satjepa.config.sections import Train

BINS = 10  # of the noise level


class Stop:
    """Lets the step in hand end when SIGINT, SIGTERM or a time limit asks to stop; a second Ctrl-C
    stops at once.

    A context manager; inside, `reason` is "" until someone asks. Signals are only heard in the main
    thread.
    """

    def __init__(self, max_seconds: float | None = None) -> None:
        self._asked = ""
        self._handlers = {}
        self._deadline = float("inf") if max_seconds is None else time.monotonic() + max_seconds

    @property
    def reason(self) -> str:
        """Who asked to stop: a signal's name or "time limit", "" for nobody."""
        return self._asked or ("time limit" if time.monotonic() > self._deadline else "")

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {
                s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number).name


class Report:
    """Means of every named value since the last line, written every so many steps to <run>/log.csv.

    how: the `train` section, its `log_every` the length of a line unless `every` is given. facts:
    copied to run.json. main: False in all processes but one, which write nothing. log.csv is the
    same for equal runs, stopped and resumed or not, as its state is part of the checkpoint; what
    depends on the machine and the hour goes to <run>/speed.csv and <run>/run.json.
    """

    def __init__(
        self,
        run: Path,
        how: Train | Fit,
        progress: bool,
        facts: dict[str, Any],
        main: bool = True,
        every: int = 0,
    ) -> None:
        self.run = run
        self.steps = how.steps
        self.batch = how.batch
        self.facts = facts
        self.every = every or how.log_every
        self.binned = False
        self.main = main
        self.progress = progress and main
        self.terminal = sys.stderr.isatty()
        self.rows: list[dict[str, str]] = []
        self.sums: dict[str, list[float]] = {}  # name -> [sum, count] since the last line
        self.before = 0.0  # seconds of earlier sessions

    def state(self) -> dict[str, Any]:
        """Everything that log.csv is made of, for the checkpoint."""
        return {"rows": self.rows, "sums": self.sums}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.rows = state["rows"]
        self.sums = state["sums"]
        if (self.run / "run.json").is_file():
            self.before = json.loads((self.run / "run.json").read_text())["seconds"]

    @contextmanager
    def open(self, start: int) -> Iterator[None]:
        """Write what is known so far and keep the files open while the run goes on from step
        `start`.
        """
        from tqdm import tqdm

        self.run.mkdir(parents=True, exist_ok=True)
        self.start = start
        self.began = time.monotonic()
        self.line = (start, self.began)
        bar = tqdm(
            total=self.steps,
            initial=start,
            unit="step",
            disable=not (self.progress and self.terminal),
        )
        names = (
            (self.run / "log.csv", self.run / "speed.csv")
            if self.main
            else (os.devnull, os.devnull)
        )
        with (
            bar,
            open(names[0], "w", newline="") as log,
            open(names[1], "a" if start else "w") as speed,
        ):
            self.bar = bar
            self.files = (log, speed)
            self.names = {}
            self._write(self.rows)
            self.write_run("running", start)
            yield

    def add(
        self,
        step: int,
        lr: float,
        values: dict[str, float],
        sigma: Sequence[float] = (),
        flow: Sequence[float] = (),
    ) -> None:
        """Count one step: its values, and the flow loss of each of its samples, by noise level,
        where there is one.

        A line has the names of its last step, so that a value of every line's last step alone is
        logged as it is.
        """
        self.binned = bool(sigma)
        binned = [
            (f"flow.s{min(int(BINS * s), BINS - 1)}", each)
            for s, each in zip(sigma, flow, strict=True)
        ]
        for name, value in [*values.items(), *binned]:
            total = self.sums.setdefault(name, [0.0, 0])
            total[0] += value
            total[1] += 1
        self.bar.update()
        if step % self.every == 0:
            self._end_line(step, lr, list(values))

    def _end_line(self, step: int, lr: float, names: list[str]) -> None:
        names += [f"flow.s{i}" for i in range(BINS)] if self.binned else []
        means = {
            name: self.sums[name][0] / self.sums[name][1] if name in self.sums else None
            for name in names
        }
        row = {"step": str(step), "lr": f"{lr:.6g}"} | {
            k: "" if v is None else f"{v:.6g}" for k, v in means.items()
        }
        self.rows.append(row)
        self.sums.clear()
        self._write([row])
        now = time.monotonic()
        rate = (step - self.line[0]) * self.batch / max(now - self.line[1], 1e-9)
        left = (now - self.began) / (step - self.start) * (self.steps - step)
        self.line = (step, now)
        self.files[1].write(f"{step},{self.before + now - self.began:.1f},{rate:.1f}\n")
        for file in self.files:
            file.flush()
        told = " ".join(
            f"{k} {means[k]:.{3 if means[k] > 0.1 else 5}f}"
            for k in ("loss", "val_loss")
            if k in means
        )
        self.bar.set_postfix_str(f"{told}, {rate:.1f} images/s")
        if self.progress and not self.terminal:
            when = f"{left // 60:.0f}:{left % 60:02.0f} to go"
            print(f"step {step:>6}/{self.steps}  {told}  {rate:.1f} images/s  {when}", flush=True)

    def _write(self, rows: list[dict[str, str]]) -> None:
        """Add rows to log.csv, which is written anew where they bring names that are not in its
        header.
        """
        if not self.main:
            return
        log = self.files[0]
        known = len(self.names)
        self.names |= dict.fromkeys(name for row in rows for name in row)
        writer = csv.DictWriter(log, list(self.names), restval="")
        if len(self.names) > known:
            log.seek(0)
            log.truncate()
            writer.writeheader()
            rows = self.rows
        writer.writerows(rows)

    def write_lesson(self, lines: list[dict[str, float]], seconds: float) -> None:
        """Write lesson.csv: the lines of the reader's lesson, whose seconds are none of the steps
        beside it.
        """
        self.line = (self.line[0], self.line[1] + seconds)
        if not self.main or not lines:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        for line in lines:
            writer.writerow({name: f"{value:.6g}" for name, value in line.items()})
        write_text(self.run / "lesson.csv", text.getvalue())

    def forget_lesson(self) -> None:
        """Remove the lesson.csv of an earlier run in this folder."""
        (self.run / "lesson.csv").unlink(missing_ok=True)

    def write_run(self, reason: str, step: int) -> None:
        """Write run.json: how far the run is, why it stands there, how long it took, and on what
        machine.
        """
        if not self.main:
            return
        seconds = time.monotonic() - self.began
        rate = (step - self.start) * self.batch / seconds if step > self.start else None
        state = {
            "stop_reason": reason,
            "step": step,
            "steps": self.steps,
            "seconds": round(self.before + seconds, 1),
        }
        text = json.dumps(
            state | {"images_per_second": rate and round(rate, 1)} | self.facts, indent=1
        )
        write_text(self.run / "run.json", text + "\n")


def git_revision() -> str:
    """Commit of the work tree, with -dirty if files differ from it; "none" outside git."""
    git = ["git", "-C", str(root()), "describe", "--always", "--dirty", "--abbrev=40"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "none"
