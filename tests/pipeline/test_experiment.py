"""An experiment: a second checkout with other parameters, the same cache, a clock, and its results
carried home.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from dvc.cli.parser import get_main_parser
from reach import REPO

from satjepa.config.files import read_params
from satjepa.evaluation.score import OURS
from satjepa.paths import root
from satjepa.pipeline import experiment, experiment_results

HOME = {
    "dvc.yaml": "stages: {}\n",
    "params.yaml": "seed: 0\n",
    "satjepa/__init__.py": "",
    "satjepa/paths.py": "",  # what makes it a checkout
    "satjepa/a.py": "one",
    ".dvc/config": "",
}
HOME |= {".gitignore": "/runs\n/.work\n"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small git repository as the current folder; half of it is not yet added."""
    made = {"runs/x": "made", "reports/table.csv": "the demo's", "dvc.lock": "the demo's"}
    for name, text in (HOME | made).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "dvc.yaml", "params.yaml"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    assert root() == tmp_path  # else the repository itself would be worked on
    for module in (experiment, experiment_results):  # the files here are a few lines
        monkeypatch.setattr(module, "load_params", few_lines)
    return tmp_path


def few_lines(path: Path) -> SimpleNamespace:
    """What an experiment asks of its parameters, from a file that holds little else."""
    return SimpleNamespace(
        seeds=read_params(path)["seeds"], arms_of=lambda kind: ["no_jepa", "bare_rgb"]
    )


def test_lay_out_copies_sources_and_keeps_results(home: Path):
    folder = home / "runs/there"
    experiment.lay_out(folder, "seed: 1\n")
    files = {
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and ".git/" not in str(p)
    }
    assert files == {*HOME, ".dvc/config.local"}  # nothing that a run made here
    assert (folder / "params.yaml").read_text() == "seed: 1\n"
    assert json.loads((folder / ".dvc/config.local").read_text().partition("dir = ")[2]) == str(
        home / ".dvc/cache"
    )
    assert (folder / ".git").is_dir()
    (folder / "dvc.lock").write_text("the experiment's")
    (home / "satjepa/a.py").rename(home / "satjepa/b.py").write_text("two")
    experiment.lay_out(folder, "seed: 2\n")
    assert (folder / "dvc.lock").read_text() == "the experiment's"
    assert (folder / "satjepa/b.py").read_text() == "two"
    assert not (folder / "satjepa/a.py").exists()  # hashes of folders see what is left behind
    assert (folder / "params.yaml").read_text() == "seed: 2\n"


# Stands in for satjepa.pipeline.repro.
COUNTED = "import os, runpy, sys\nos.environ['COUNTED'] = 'yes'\nsys.argv.insert(1, 'repro')\n"
COUNTED += "runpy.run_path('dvc.py', run_name='__main__')\n"


def stand_in_for_dvc(home: Path, code: str) -> None:
    """A module `dvc`, and one that counts its stages, that repro will find before the real ones."""
    (home / "dvc.py").write_text(code)
    (home / "satjepa/pipeline").mkdir()
    (home / "satjepa/pipeline/repro.py").write_text(COUNTED)


def test_repro_gives_the_status_and_sets_the_scene(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SATJEPA_PARAMS", "params.table.yaml")
    code = "import json, os, sys\nname = sys.argv[-1]\n"
    code += "json.dump((sys.argv[1:], dict(os.environ)), open(name, 'w'))\n"
    stand_in_for_dvc(home, code + "sys.exit(3 if name == 'repro' else 0)")
    assert experiment.repro(home) == 3
    arguments, environment = json.loads((home / "repro").read_text())
    assert arguments == ["repro"]
    # before all else, as the next test sees
    first, _ = json.loads((home / experiment.DATA).read_text())
    assert first == ["repro", experiment.DATA] and (REPO / experiment.DATA).exists()
    assert "SATJEPA_PARAMS" not in environment and environment["COUNTED"] == "yes"
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


WORKER = """
import json, os, sys, time
if sys.argv[1:3] == ["stage", "list"]:
    print("shared\\ntrain@0\\ntrain@1\\nfigures")
    sys.exit()
with open(f"said-{os.getpid()}", "w") as file:
    threads, counted = (os.environ.get(name) for name in ("OMP_NUM_THREADS", "COUNTED"))
    json.dump((sys.argv[1:], time.time(), threads, counted), file)
until = time.time() + 60
while sys.argv[-1] == "train@0" and not any(
    "train@1" in open(n).read() for n in os.listdir() if n.startswith("said")
):
    if time.time() > until:
        sys.exit("alone")
    time.sleep(0.05)
sys.exit(int(os.environ.get("STATUS", 0)) if "train@1" in sys.argv else 0)
"""


def test_workers_run_arms_side_by_side(home: Path, monkeypatch: pytest.MonkeyPatch):
    """`train@0` ends only when it has seen `train@1` at work; what stands before and after runs
    alone.
    """
    stand_in_for_dvc(home, WORKER)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert experiment.repro(home, workers=2) == 0
    said = sorted(
        (json.loads(path.read_text()) for path in home.glob("said-*")), key=lambda one: one[1]
    )
    side = [["--wait-for-lock", "repro", "--single-item", f"train@{seed}"] for seed in (0, 1)]
    alone = [["repro", experiment.DATA], ["repro", experiment.SHARED], ["repro"]]
    assert [one[0] for one in (*said[:2], said[-1])] == alone
    assert sorted(one[0] for one in said[2:4]) == side and len(said) == 5
    assert [one[2] for one in said[2:4]] == ["3", "3"]
    assert [one[3] for one in said] == ["yes", "yes", None, None, "yes"]
    for arguments, *_ in said:
        get_main_parser().parse_args(arguments)  # exits where it does not know an option
    monkeypatch.setenv("STATUS", "5")
    assert experiment.repro(home, workers=2) == 5


def test_the_clock_interrupts_and_waits(home: Path, monkeypatch: pytest.MonkeyPatch):
    """The time is up as soon as the work has begun."""
    stand_in_for_dvc(
        home,
        "import time\ntry:\n    open('started', 'w')\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open('stopped', 'w').write('cleanly')\n    raise",
    )
    monkeypatch.setattr(time, "monotonic", lambda: 61.0 if (home / "started").exists() else 0.0)
    assert experiment.repro(home, minutes=1) == experiment.NOT_DONE
    assert (home / "stopped").read_text() == "cleanly"


TABLE = "model,preset,n,samples,seeds,psnr,crps\nPersistence,a,4,1,1,17.0,\nours,a,4,8,1,{},0.5\n"
LOCK = """
stages:
  figures:
    deps: [{{path: satjepa/figures/plots.py, md5: {place}}}]
    params: {{params.yaml: {{seeds: {place}}}}}
  train@{place}:
    deps: [{{path: satjepa/training/loop.py, md5: {code}}}, {{path: artifacts/text, md5: {place}}}]
    params: {{params.yaml: {{loss: {loss}}}}}
"""


def seed_done(folder: Path, psnr: float, code: str = "abc", loss: float = 1) -> None:
    """The results of one seed, as `collect` leaves them: with figures and artifacts of its own."""
    folder.mkdir(parents=True)
    (folder / "table.csv").write_text(TABLE.format(psnr))
    (folder / "table.settings.json").write_text('{"data_range": 1.0}')
    (folder / "dvc.lock").write_text(LOCK.format(place=folder.name, code=code, loss=loss))


def test_seeds_are_combined(tmp_path: Path):
    """Mean and deviation of what was trained; what no seed changes has none; in the order of the
    seeds' numbers.
    """
    for seed, psnr in ((10, 20.0), (2, 21.0), (0, 25.0)):
        seed_done(tmp_path / f"seed-{seed}", psnr)
    assert experiment.combine(tmp_path) == [0, 2, 10]
    fixed, ours = pd.read_csv(tmp_path / "table.csv").to_dict("records")
    assert (fixed["psnr"], fixed["seeds"]) == (17.0, 1) and math.isnan(fixed["psnr_std"])
    assert (ours["psnr"], ours["seeds"], ours["crps"]) == (22.0, 3, 0.5)
    assert ours["psnr_std"] == pytest.approx(7**0.5)
    assert "seeds_std" not in ours
    assert json.loads((tmp_path / "table.settings.json").read_text()) == {"data_range": 1.0}


@pytest.mark.parametrize(
    "other", [{"code": "abd"}, {"loss": 2}], ids=["another train.py", "another parameter"]
)
def test_seeds_of_different_runs_are_not_combined(tmp_path: Path, other: dict[str, str]):
    seed_done(tmp_path / "seed-0", 20.0)
    seed_done(tmp_path / "seed-1", 21.0, **other)
    with pytest.raises(
        experiment.ExperimentError, match=r"seed-1 and .*differ in (satjepa/training/loop.py|loss)$"
    ):
        experiment.combine(tmp_path)
    assert not (tmp_path / "table.csv").exists()


def test_a_seed_alone_of_an_overlay(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("a: 1 # why\nseeds: [0]\nb: {c: 2}\n")
    (tmp_path / "params.table.yaml").write_text("base: params.yaml\nseeds: [0, 3]\nb: {d: 3}\n")
    text = experiment.with_seed(tmp_path / "params.table.yaml", 3)
    assert yaml.safe_load(text) == {"a": 1, "seeds": [3], "b": {"c": 2, "d": 3}}
    with pytest.raises(experiment.ExperimentError, match=r"seed 1 is not one of seeds, \[0, 3\]"):
        experiment.with_seed(tmp_path / "params.table.yaml", 1)


def left_by_run(run: Path, timing: str) -> None:
    """What a run leaves beside its scores."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "timing.csv").write_text(f"model,preset,seconds_per_patch\n{timing}")
    (run / "run.json").write_text('{"trained_parameters": 7, "seconds": 90}')


def test_results_are_carried_home_when_all_is_done(
    home: Path, capsys: pytest.CaptureFixture, monkeypatch
):
    """Seed 0 needs three calls, as the clock and an error stop it; the third goes on to seed 1."""
    (home / "params.table.yaml").write_text("seed: 7\nseeds: [0, 1]\n")
    statuses = iter([experiment.NOT_DONE, 5, 0, 0])
    called = []

    def repro(folder: Path, minutes: float | None, workers: int) -> int:
        called.append(folder.name)
        made = {
            "dvc.lock": LOCK.format(place="x", code="abc", loss=1),
            "reports/table.csv": TABLE.format(20 + len(called)),
        }
        made |= {"reports/table.settings.json": "{}", "reports/figures/a.png": "a"}
        for name, text in made.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        left_by_run(folder / "runs/unet-0", "U-Net,a,0.5\nU-Net,b,0.25\n")
        left_by_run(
            folder / "runs/no_jepa-0", f'"{OURS}, mean of 8",a,2\n"{OURS}, one sample",a,0.25\n'
        )
        return next(statuses)

    monkeypatch.setattr(experiment, "repro", repro)
    target = home / "experiments/table"
    assert experiment.main(["params.table.yaml", "--minutes", "30"]) == experiment.NOT_DONE
    assert "30 minutes: the same command goes on" in capsys.readouterr().err
    assert experiment.main(["params.table.yaml"]) == 5
    assert not target.exists()
    assert experiment.main(["params.table.yaml"]) == 0
    assert called == ["table-0", "table-0", "table-0", "table-1"]
    assert "of seeds 0, 1" in capsys.readouterr().out
    first = target / "seed-0"
    assert yaml.safe_load((first / "params.yaml").read_text()) == {"seed": 7, "seeds": [0]}
    assert (first / "table.csv").read_text() == TABLE.format(23)
    assert (first / "dvc.lock").exists() and (first / "figures/a.png").exists()
    machine = yaml.safe_load((first / "machine.yaml").read_text())
    assert machine["parts"] == 3 and machine["workers"] == 1
    assert machine["cores"] == os.cpu_count() and machine["minutes"] >= 0
    head = "run,model,trained_parameters,training_minutes,seconds_per_patch"
    assert (first / "costs.csv").read_text().splitlines() == [
        head,
        'no_jepa-0,"Ablation: no JEPA, 8 samples",7,1.5,2.0',
        "unet-0,U-Net,7,1.5,0.375",
    ]
    assert pd.read_csv(target / "table.csv")["psnr"].tolist() == [17.0, 23.5]
    assert (home / "reports/table.csv").read_text() == "the demo's"


def test_older_seeds_may_be_of_other_code(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """A table of two codes is never made; running the older seed anew, too, ends in one of both."""
    (home / "params.table.yaml").write_text("seeds: [0, 1]\n")
    target = home / "experiments/table"
    seed_done(target / "seed-1", 20.0, code="old")
    assert experiment.combine(target) == [1]

    def run_seed(name: str, text: str, seed: int, left: float | None, workers: int) -> int:
        shutil.rmtree(target / f"seed-{seed}", ignore_errors=True)
        seed_done(target / f"seed-{seed}", 21.0 + 2 * seed, code="new")
        return 0

    monkeypatch.setattr(experiment, "run_seed", run_seed)
    assert experiment.main(["params.table.yaml", "--seeds", "0"]) == 1
    assert (
        "seed 0 is done; there is no table, as " in (said := capsys.readouterr().out)
        and "training/loop.py" in said
    )
    assert not (target / "table.csv").exists()
    assert experiment.main(["params.table.yaml"]) == 0
    assert pd.read_csv(target / "table.csv")["psnr"].tolist() == [17.0, 22.0]


def test_a_seed_that_the_file_does_not_have(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """One plain message as for any wrong argument, before the seeds that it has are run."""
    (home / "params.table.yaml").write_text("seeds: [0, 1]\n")
    monkeypatch.setattr(experiment, "run_seed", lambda *_: pytest.fail("a seed was run"))
    with pytest.raises(SystemExit) as stopped:
        experiment.main(["params.table.yaml", "--seeds", "0", "9"])
    assert stopped.value.code == 2
    last = (
        "python -m satjepa.pipeline.experiment: error: argument --seeds: seed 9 is not one of "
        "seeds, [0, 1]"
    )
    assert capsys.readouterr().err.splitlines()[-1] == last


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "params.table.yaml.*no such file"),
        ("seed: 0\ntrain: {stepz: 4}\n", "params.table.yaml.*(stepz|missing)"),
    ],
)
def test_a_bad_params_file_is_one_line(
    text: str | None,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    """Before anything runs, and not from within a stage."""
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("params.table.yaml").write_text(text)
    with pytest.raises(SystemExit) as stopped:
        experiment.main(["params.table.yaml"])
    assert stopped.value.code == 2
    assert re.search(f"error: .*{says}", capsys.readouterr().err.splitlines()[-1])


def test_one_seed_is_asked_for(home: Path, monkeypatch: pytest.MonkeyPatch):
    (home / "params.table.yaml").write_text("seeds: [0, 1, 2]\n")
    asked = []
    monkeypatch.setattr(
        experiment, "run_seed", lambda name, text, seed, left, workers: asked.append(seed) or 5
    )
    assert experiment.main(["params.table.yaml", "--seeds", "1", "2"]) == 5
    assert asked == [1]
