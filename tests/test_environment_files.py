"""The environment: what is imported is declared, what is declared is pinned, all files agree."""

import ast
import subprocess
import sys
import tomllib

import pytest
import yaml
from reach import REPO, code_of

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


def requirements(name: str) -> dict[str, str]:
    """Package -> version of the == pins of a requirements file; "" where it is not pinned."""
    lines = [line.split(";")[0].strip() for line in (REPO / name).read_text().splitlines()]
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    return {package.lower().replace("_", "-"): version for package, _, version in pairs}


# Nothing imports these: they are programs, or what another package reads Parquet or Zarr with.
PROGRAMS = {"jupyterlab", "ipykernel", "pyarrow", "ruff", "pytest-timeout", "pytest-xdist"}


def imported_by(folders: tuple[str, ...]) -> set[str]:
    """The distributions, other than Python's own, that the files of some folders import."""
    from importlib.metadata import packages_distributions

    texts = [path.read_text() for name in folders for path in (REPO / name).rglob("*.py")]
    texts += [code_of(path) for name in folders for path in (REPO / name).glob("*.ipynb")]
    modules = {name for text in texts for name in third_party(ast.parse(text))}
    known = packages_distributions()
    known |= {"ruamel": ["ruamel-yaml"], "pydantic_core": ["pydantic"]}  # which pins its core
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
