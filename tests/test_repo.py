"""What holds for the repository as a whole: notebooks, pipeline, environments, and nothing in it
that must not be.
"""

import ast
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from reach import REPO, code_of, modules_of

from satjepa.config.files import read_yaml
from satjepa.pipeline.run_notebook import canonical

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
CARD = {
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "jupyterlab",
    "papermill",
    "rasterio",
    "xarray",
    "lpips",
}
CARD |= {"matplotlib", "dvc"}
# Reached by every notebook, and no reason to run it again: what they read is in `params`, what they
# print is no result.
PLUMBING = (
    "config",
    "contracts",
    "paths",
    "pipeline/notebook",
    "pipeline/run_notebook",
    "__init__",
)
# What is only looked at: no reason to make data or models again.
LOOKED_AT = ("figures", "evaluation", "metrics", "baselines")
MAKES = {"data", "captions", "embeddings", "backbone", "train"}  # stages that others stand on
MAKES_BASELINES = {"baselines"}


def listed() -> list[Path]:
    """Every file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(
        command, cwd=REPO, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [REPO / name for name in names if name and (REPO / name).is_file()]


def stages(name: str = "dvc.yaml") -> dict[str, dict]:
    """The stages of dvc.yaml or dvc.lock, read as DVC does: YAML 1.2, in which `no` is a word."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load((REPO / name).read_text())["stages"]


def one_of(entry: str | dict) -> str:
    """The path of an out that may carry options."""
    return entry if isinstance(entry, str) else next(iter(entry))


# ---- notebooks ----


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_is_as_git_holds_it(path: Path):
    assert canonical(path, write=False), (
        f"run: python -m satjepa.pipeline.run_notebook --clean notebooks/{path.name}"
    )
    assert re.fullmatch(r"\d\d_[a-z_]+\.ipynb", path.name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_a_notebook_is_thin(path: Path):
    """Claim, short cell, picture: everything longer lives in the package, where it is tested."""
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [
        i for i, cell in enumerate(code) if "parameters" in cell["metadata"].get("tags", [])
    ] == [0]
    assert max(len(cell["source"]) for cell in code) <= 25
    assert sum(len(cell["source"]) for cell in code) <= 150
    assert len(cells) - len(code) >= len(code) - 1, "fewer words than code"
    nodes = list(ast.walk(ast.parse(code_of(path))))
    assert not [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    calls = {
        n.func.attr for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
    }
    assert not calls & {"backward", "zero_grad", "train_test_split"}, (
        "a training loop lives in the package"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_the_parameters_cell_holds_no_values(path: Path):
    """Values come from params.yaml; what this cell assigns is only what a stage may pass."""
    first = next(
        cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
    )
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse("".join(first["source"])).body
    }
    allowed = {"arm": None, "seed": None, "run_dir": "runs/scratch", "overrides": {}}
    assert assigned.items() <= allowed.items()


# ---- pipeline ----


def test_every_notebook_is_a_stage():
    used = {dep for stage in stages().values() for dep in stage["deps"] if dep.endswith(".ipynb")}
    assert used == {f"notebooks/{path.name}" for path in NOTEBOOKS}


# The first stages open a data set to look at it, without the captions and latents that come later.
NOT_YET = {"data": ("assemble", "captions", "models"), "captions": ("models",)}


def no_dependency(stage: str) -> tuple[str, ...]:
    """Parts of satjepa/ that a stage may reach without depending on them."""
    if stage in NOT_YET:
        return (*PLUMBING, *LOOKED_AT, *NOT_YET[stage])
    if stage in MAKES_BASELINES:
        return (*PLUMBING, *(part for part in LOOKED_AT if part != "baselines"))
    return (*PLUMBING, *LOOKED_AT) if stage in MAKES else PLUMBING


@pytest.mark.parametrize("name", stages())
def test_a_stage_depends_on_the_code_that_it_reaches(name: str):
    """No less, or a change would not run it again: `python tests/reach.py`. A folder stands for all
    that is in it, and each that is listed is reached.
    """
    deps = stages()[name]["deps"]
    notebook = next(dep for dep in deps if dep.endswith(".ipynb"))
    passed_over = tuple(f"satjepa/{part}" for part in no_dependency(name))
    reached = [path for path in modules_of(REPO / notebook) if not path.startswith(passed_over)]
    reached = [path for path in reached if not path.endswith("/__init__.py")]
    code = [dep for dep in deps if dep.startswith("satjepa/")]
    lacking = [path for path in reached if not path.startswith(tuple(code))]
    idle = [dep for dep in code if not any(path.startswith(dep) for path in reached)]
    assert (lacking, idle) == ([], [])


@pytest.mark.parametrize("name", sorted(MAKES | MAKES_BASELINES))
def test_nothing_that_is_only_looked_at_makes_data_or_models_again(name: str):
    deps = stages()[name]["deps"]
    looked_at = tuple(f"satjepa/{part}" for part in no_dependency(name))
    assert not [dep for dep in deps if dep.startswith(looked_at)]
    sections = {key.split(".")[0] for key in stages()[name]["params"]}
    assert not sections & {"sample"}
    assert "eval" not in sections or name == "backbone"  # LPIPS is part of the decoder's loss


def leaves(values: dict, prefix: str = "") -> set[str]:
    """The dotted keys of params.yaml; an arm counts as one value."""
    found = set()
    for name, value in values.items():
        deeper = isinstance(value, dict) and f"{prefix}{name}" not in ("arms", "baselines.arms")
        found |= leaves(value, f"{prefix}{name}.") if deeper else {prefix + name}
    return found


def test_every_parameter_reaches_a_stage():
    params = leaves(read_yaml(REPO / "params.yaml"))
    asked = {key.split(".$")[0] for stage in stages().values() for key in stage.get("params", [])}
    asked |= set(re.findall(r"\$\{((?!item|nb|done|key)[\w.]+)\}", (REPO / "dvc.yaml").read_text()))
    unread = [key for key in params if not any(f"{key}.".startswith(f"{a}.") for a in asked)]
    assert unread == []


def test_what_only_grows_is_not_deleted_before_its_stage():
    """A captioner that is killed goes on: its rows, and the embeddings of its texts, are kept."""
    for name, out in {"captions": "artifacts/captions", "embeddings": "artifacts/text"}.items():
        (kept,) = [o for o in stages()[name]["outs"] if one_of(o).startswith(out)]
        assert kept[one_of(kept)]["persist"] is True


def test_the_pipeline_is_read_at_a_glance():
    assert len((REPO / "dvc.yaml").read_text().splitlines()) <= 150


def md5_of(path: Path) -> str:
    """The hash that dvc.lock holds: of a file, or of a folder's listing."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(p for p in listed() if p.is_relative_to(path))
    rows = [{"md5": md5_of(p), "relpath": p.relative_to(path).as_posix()} for p in files]
    return hashlib.md5(json.dumps(rows).encode()).hexdigest() + ".dir"


def test_the_lock_is_fresh():
    """What dvc.lock recorded is what git holds now; else run `dvc repro` before committing."""
    assert set(stages()) == {name.split("@")[0] for name in stages("dvc.lock")}
    tracked = listed()
    params = read_yaml(REPO / "params.yaml")
    for name, stage in stages("dvc.lock").items():
        frozen = stages()[name.split("@")[0]].get("frozen", False)
        for entry in ([] if frozen else stage["deps"]) + stage["outs"]:
            path = REPO / entry["path"]
            if path in tracked or any(p.is_relative_to(path) for p in tracked):
                assert md5_of(path) == entry["md5"], (name, entry["path"])
        for key, value in {} if frozen else stage.get("params", {}).get("params.yaml", {}).items():
            found = params
            for part in key.split("."):
                found = found[part]
            assert found == value, (name, key)


def test_the_data_version_is_that_of_the_demo_world():
    """An import of a folder that git holds, not frozen: so a fresh clone has its data without a
    remote.
    """
    imported = yaml.safe_load((REPO / "data.dvc").read_text())
    assert "frozen" not in imported
    assert (imported["deps"][0]["path"], imported["outs"][0]["path"]) == ("assets/demo", "data")
    assert imported["deps"][0]["md5"] == imported["outs"][0]["md5"] == md5_of(REPO / "assets/demo")


# ---- environments ----


def requirements(name: str) -> dict[str, str]:
    """Package -> version of the == pins of a requirements file; "" where it is not pinned."""
    lines = [line.split(";")[0].strip() for line in (REPO / name).read_text().splitlines()]
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, _, version in pairs}


# Nothing imports these: they are programs, or what another package reads Parquet or Zarr with.
PROGRAMS = {"jupyterlab", "ipykernel", "pyarrow", "ruff", "pytest-timeout"}


def imported_by(folders: tuple[str, ...]) -> set[str]:
    """The distributions, other than Python's own, that the files of some folders import."""
    from importlib.metadata import packages_distributions

    texts = [path.read_text() for name in folders for path in (REPO / name).rglob("*.py")]
    texts += [code_of(path) for name in folders for path in (REPO / name).glob("*.ipynb")]
    modules = {name for text in texts for name in third_party(ast.parse(text))}
    known = packages_distributions() | {"ruamel": ["ruamel-yaml"]}
    return {known[name][0].lower().replace("_", "-").replace(".", "-") for name in modules}


def third_party(tree: ast.Module) -> set[str]:
    """The top-level modules that a file imports and that are neither Python's nor ours."""
    ours = {"satjepa", *(path.stem for name in OURS for path in (REPO / name).rglob("*.py"))}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found - ours - sys.stdlib_module_names - {"__future__"}


OURS = ("tests", "benchmarks", "scripts")
PACKAGE = ("satjepa", "notebooks", "benchmarks")


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    """By name, not by way of another package that happens to bring it along."""
    from packaging.requirements import Requirement

    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    declared = {Requirement(r).name for r in project["dependencies"]}
    dev = {Requirement(r).name for r in project["optional-dependencies"]["dev"]}
    used = imported_by(PACKAGE)
    assert sorted(used - declared) == []
    assert sorted(declared - used - PROGRAMS) == []
    used_by_tests = imported_by(("tests",)) | {"scikit-image", "torchmetrics"}  # importorskip
    assert sorted(used_by_tests - declared - dev) == []
    assert sorted(dev - used_by_tests - PROGRAMS) == []


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=lambda c: c[0])
def test_ruff_finds_nothing(command: list[str]):
    """As `make lint`."""
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache"]
    done = subprocess.run(ruff, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_lock_pyproject_and_conda_agree():
    from packaging.requirements import Requirement

    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    asked = requirements("requirements.in")
    lock = requirements("requirements.txt")
    needed = [
        Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["dev"]
    ]
    assert {r.name for r in needed} >= CARD
    assert {r.name for r in needed} == set(asked)
    assert {name: version for name, version in asked.items() if version} == {
        n: lock[n] for n, v in asked.items() if v
    }
    assert not [str(r) for r in needed if not r.specifier.contains(lock[r.name])]
    conda = yaml.safe_load((REPO / "environment.yml").read_text())
    assert conda["dependencies"][-1]["pip"] == ["-r requirements.txt", "-e ."]
    python = next(d for d in conda["dependencies"] if d.startswith("python=")).removeprefix(
        "python="
    )
    assert project["requires-python"] == f">={python}"
    assert project["scripts"]["satjepa"] == "satjepa.cli:app"
    assert project["version"] == yaml.safe_load((REPO / "CITATION.cff").read_text())["version"]


# ---- what must not be there ----

HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry." + "npmjs",
    "conda." + "anaconda",
    "extra-" + "index-url",
]
TOKENS = [
    r"hf_[A-Za-z0-9]{24,}",
    r"gh[pousr]_[A-Za-z0-9]{30,}",
    r"AKIA[0-9A-Z]{16}",
    r"sk-[A-Za-z0-9]{32,}",
]
TOKENS += [r"-----BEGIN [A-Z ]*PRIVATE KEY", r"://[^/\s:@]+:[^/\s:@]+@"]


def test_no_address_of_a_registry_and_no_token_in_any_file():
    pattern = re.compile("|".join([*map(re.escape, HOSTS), *TOKENS]).encode())
    assert not [
        (path.name, hit.group())
        for path in listed()
        for hit in [pattern.search(path.read_bytes())]
        if hit
    ]


def test_what_the_pipeline_makes_is_not_in_git():
    names = [path.relative_to(REPO).as_posix() for path in listed()]
    made = re.compile(
        r"(data|artifacts|runs|\.venv|\.work)/|reports/(?!table\.)|.*\.(pyc|pth|pt|pkl|ckpt)$"
    )
    assert not [name for name in names if made.match(name)]
    assert sum(path.stat().st_size for path in listed()) < 60e6
