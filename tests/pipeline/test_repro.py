"""The way ahead before each stage: counted by what DVC will run, timed by what it ran before."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from reach import REPO

from satjepa.config.yaml12 import loads
from satjepa.pipeline.repro import REFERENCE, RUNS, SKIPS, Pace, Progress, Seconds, in_words

PIPELINE = """
stages:
  first: {cmd: python -c "print(1)" > one, deps: [source], outs: [one]}
  each:
    matrix: {arm: [x, y]}
    cmd: %s
    deps: [one]
    params: ["arms.${item.arm}"]
    outs: ["${item.arm}"]
  frozen: {frozen: true, cmd: "false", deps: [source], outs: [never: {cache: false}]}
  last: {cmd: cat x y never > all, deps: [x, y, never], outs: [all]}
"""
COPY = "cp one ${item.arm}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A DVC repository of four stages that take no time, and a frozen one."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(PIPELINE % COPY)
    (tmp_path / "params.yaml").write_text("arms: {x: 1, y: 2}\n")
    for name in ("source", "never"):
        (tmp_path / name).write_text(name)
    return tmp_path


def start(project: Path, *arguments: str) -> subprocess.Popen:
    """Hears Ctrl-C even where the tests run in the background of a shell, which lets its jobs
    ignore it.
    """
    env = os.environ | {"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "satjepa.pipeline.repro", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def repro(project: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit status, the lines of stdout, and stderr."""
    process = start(project, *arguments)
    out, err = process.communicate()
    return process.returncode, out.splitlines(), err


def steps(lines: list[str]) -> list[str]:
    """The lines that say where the run is, up to the colon."""
    return [line.split(":")[0] for line in lines if line.startswith("[")]


def test_what_is_to_run_is_counted_and_the_rest_is_dvc(project: Path):
    status, lines, err = repro(project)
    assert status == 0, err
    assert steps(lines) == ["[1/4] first", "[2/4] each@x", "[3/4] each@y", "[4/4] last"]
    for name in ("first", "each@x", "last"):  # before DVC's own line, which is there as always
        place = next(i for i, line in enumerate(lines) if line.partition("] ")[2].startswith(name))
        assert lines[place + 1] == f"Running stage '{name}':"
    assert lines[-1].startswith("4 stages in ")
    kept = json.loads((project / ".dvc/tmp/stage_seconds.json").read_text())
    assert sorted(kept["done"]) == ["each@x", "each@y", "first", "last"]
    assert kept["begun"] == {} and all(value > 0 for value in kept["done"].values())

    status, lines, _ = repro(project)
    assert status == 0 and steps(lines) == []
    assert lines[-1] == "Data and pipelines are up to date."

    (project / "params.yaml").write_text("arms: {x: 1, y: 3}\n")
    status, lines, _ = repro(project, "--dry")
    assert status == 0 and steps(lines) == [] and "Running stage 'each@y':" in lines
    status, lines, _ = repro(project)
    # y is made anew, but equal, and `last` with it is not
    assert steps(lines) == ["[1/2] each@y"] and lines[-1].startswith("1 stage in ")
    assert "to go" in next(line for line in lines if line.startswith("["))
    status, lines, _ = repro(project, "--force", "--single-item", "each@x")
    assert steps(lines) == ["[1/1] each@x"]
    for name in ("x", "y"):
        (project / name).unlink()
    status, lines, _ = repro(project, "each@x")  # from the cache of runs
    assert status == 0 and steps(lines) == [] and (project / "x").exists()


def test_a_failure_and_its_status_are_those_of_dvc(project: Path):
    (project / "dvc.yaml").write_text(PIPELINE % "exit 3")
    status, lines, err = repro(project)
    assert status == 255 and "failed to run: exit 3" in err
    assert steps(lines) == ["[1/4] first", "[2/4] each@x"]
    kept = json.loads((project / ".dvc/tmp/stage_seconds.json").read_text())
    assert [*kept["done"]] == ["first"] and [*kept["begun"]] == ["each@x"]
    status, _, err = repro(project, "no_such_stage")
    assert status == 255 and "no_such_stage" in err and "Traceback" not in err
    status, _, err = repro(project, "--no-such-option")
    assert status == 254 and "--no-such-option" in err


def test_ctrl_c_ends_the_stage_and_dvc(project: Path):
    (project / "dvc.yaml").write_text(PIPELINE % "echo $$ > pid; sleep 60")
    process = start(project)
    deadline = time.monotonic() + 60
    while not (project / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((project / "pid").read_text()), 0)


class Script:
    """A log and a clock in which stages begin at given times."""

    def __init__(self, plan: list[str], seconds: Seconds) -> None:
        self.time = 100.0
        self.progress = Progress(plan, seconds, now=lambda: self.time)

    def log(self, message: str, name: str, after: float) -> None:
        self.time += after
        self.progress.handle(logging.LogRecord("dvc", 20, "", 0, message, (name,), None))


def test_time_to_go_follows_the_pace_of_this_run(capsys: pytest.CaptureFixture):
    """What the reference machine takes, then twice of it, as the stages here take twice as long."""
    reference = {"data": 60.0, "train@a": 300.0, "train@b": 500.0, "figures": 120.0}
    script = Script(["data", "train@a", "train@c", "figures"], Seconds(reference=reference))
    script.log(RUNS, "data", 0)
    script.log(RUNS, "train@a", 120)
    script.log(SKIPS[1], "train@c", 600)
    script.log("Generating lock file '%s'", "dvc.lock", 0)
    script.log(RUNS, "figures", 0)
    assert capsys.readouterr().out.splitlines() == [
        "[1/4] data: about 15 min to go",  # 60 + 300 + 400, the mean of its kind, + 120
        "[2/4] train@a: 2 min so far, about 27 min to go",
        "[3/3] figures: 12 min so far, about 4 min to go",
    ]
    script.time += 240
    script.progress.close_stage()
    assert script.progress.measured == {"data": 120, "train@a": 600, "figures": 240}


def test_what_was_begun_counts(capsys: pytest.CaptureFixture):
    """A stage that was stopped after 200 of 300 seconds goes on where it was."""
    seconds = Seconds(done={"train": 300.0}, begun={"train": 200.0, "other": 5.0})
    script = Script(["train"], seconds)
    script.log(RUNS, "train", 0)
    assert capsys.readouterr().out == "[1/1] train: about 2 min to go\n"
    script.time += 110
    script.progress.close_stage()
    results = script.progress.results()
    assert results.done == {"train": 310.0} and results.begun == {"other": 5.0}
    script = Script(["train"], seconds)
    script.log(RUNS, "train", 0)
    script.time += 50
    script.progress.close_stage(whole=False)
    assert script.progress.results().begun == {"train": 250.0, "other": 5.0}


def test_nothing_is_invented(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch):
    """Without a measurement there is no estimate; a machine half as fast is one."""
    script = Script(["a", "b"], Seconds())
    script.log(RUNS, "a", 0)
    assert capsys.readouterr().out == "[1/2] a: time to go not yet known\n"
    slow = Seconds(done={"a": 20.0}, reference={"a": 10.0, "b": 30.0})
    assert (slow.of("a"), slow.of("b")) == (20.0, 60.0)
    damaged = tmp_path / "stage_seconds.json"
    for text in ("", "[]", '{"done": 1}', "{"):
        damaged.write_text(text)
        assert Seconds.read(damaged).done == {}
    slow.write(damaged)
    assert Seconds.read(damaged).done == {"a": 20.0}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (1260, "21 min"), (5400, "1 h 30 min"),
     (7500, "2 h 05 min")],
)  # fmt: skip
def test_times_are_words(seconds: float, words: str):
    assert in_words(seconds) == words


def test_the_reference_machine_ran_every_stage():
    """After a stage is added: `make repro`, then
    `cp .dvc/tmp/stage_seconds.json satjepa/pipeline/`.
    """
    stages = loads((REPO / "dvc.yaml").read_text())["stages"]
    wanted = {name for name, stage in stages.items() if not stage.get("frozen")}
    known = json.loads(REFERENCE.read_text())["done"]
    assert {name.partition("@")[0] for name in known} >= wanted
    assert all(seconds > 0 for seconds in known.values())


def test_items_side_by_side_are_counted_and_timed(capsys: pytest.CaptureFixture):
    clock = iter([0, 0, 3, 3, 603, 603, 903, 903])
    pace = Pace(5, workers=2, now=lambda: next(clock))
    pace.begin("train@a")
    pace.begin("train@b")
    pace.end("train@b")  # up to date
    pace.begin("train@c")
    pace.end("train@a")  # 603 s
    pace.begin("train@d")
    pace.end("train@c")  # 900 s
    pace.begin("train@e")
    assert capsys.readouterr().out.splitlines() == [
        "[1/5] train@a: time to go not yet known",
        "[2/5] train@b: time to go not yet known",
        "[3/5] train@c: time to go not yet known",
        "[4/5] train@d: about 10 min to go",  # and train@e beside it
        "[5/5] train@e: about 13 min to go",
    ]
    Pace(1, workers=1).begin("repro")
    assert capsys.readouterr().out == ""
