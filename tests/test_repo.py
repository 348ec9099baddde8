"""What holds for the repository as a whole: notebooks, pipeline, environments, and nothing in it
that must not be.
"""

import ast
import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from reach import REPO, code_of, file_of, modules_of, reach

from satjepa.config.files import read_yaml
from satjepa.pipeline.run_notebook import canonical

NOTEBOOKS = sorted((REPO / "notebooks").glob("*.ipynb"))
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
MAKES = {
    "data",
    "captions",
    "embeddings",
    "backbone",
    "train",
    "writer",
}  # stages that others stand on
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
    allowed |= {"small": False, "place": {}}
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
    notebooks = [dep for dep in deps if dep.endswith(".ipynb")]
    if notebooks:
        modules = modules_of(REPO / notebooks[0])
    else:
        module = re.search(r"python -m ([\w.]+)", stages()[name]["cmd"])[1]
        modules = sorted(file_of(found) for found in reach([(module, None)]))
    passed_over = tuple(f"satjepa/{part}" for part in no_dependency(name))
    reached = [path for path in modules if not path.startswith(passed_over)]
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
        if hit and path.suffix != ".safetensors"  # numbers, of which some look like anything
    ]


def test_what_the_pipeline_makes_is_not_in_git():
    names = [path.relative_to(REPO).as_posix() for path in listed()]
    made = re.compile(
        r"(data|artifacts|runs|\.venv|\.work)/|reports/(?!table\.)|.*\.(pyc|pth|pt|pkl|ckpt)$"
    )
    assert not [name for name in names if made.match(name)]
    assert sum(path.stat().st_size for path in listed()) < 60e6
