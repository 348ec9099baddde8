"""The notebook runner: canonical sources, scrubbed copies, this interpreter's kernel, the
repository root.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from satjepa.pipeline import run_notebook as nb

REPO = Path(__file__).resolve().parents[2]


def notebook(*sources: str) -> nbformat.NotebookNode:
    """A notebook of code cells, the first of them tagged `parameters`."""
    cells = [new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(sources)]
    cells[0].metadata["tags"] = ["parameters"]
    return new_notebook(cells=cells)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout with a package `satjepa` of its own, as the current folder."""
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "satjepa").symlink_to(REPO / "satjepa")
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_canonical_takes_out_what_a_session_left(tmp_path: Path):
    path = tmp_path / "a.ipynb"
    clean = notebook("seed = None", "1 + 1")
    clean.cells.insert(1, new_markdown_cell("# Title", id="title"))
    nbformat.write(clean, path)
    nb.canonical(path)
    wanted = path.read_text()
    used = copy.deepcopy(clean)
    used.metadata["widgets"] = {"a": 1}
    used.cells[2].outputs = [new_output("stream", name="stdout", text="2")]
    used.cells[2].execution_count = 4
    used.cells[2].metadata["collapsed"] = True
    used.cells[1].metadata["editable"] = True
    nbformat.write(used, path)
    before = path.read_text()
    assert nb.canonical(path, write=False) is False
    assert path.read_text() == before
    assert nb.canonical(path) is False
    assert path.read_text() == wanted
    assert nb.canonical(path) is True
    kept = json.loads(wanted)
    assert [cell["id"] for cell in kept["cells"]] == ["cell-0", "title", "cell-1"]
    assert kept["cells"][0]["metadata"] == {"tags": ["parameters"]}
    assert kept["cells"][2]["source"] == ["1 + 1"]
    assert wanted.endswith("}\n")


def test_cells_without_an_id_get_the_same_one_each_time(tmp_path: Path):
    """Of format 4.4, of 4.5 with ids missing, equal or not allowed, and of format 3."""
    cells = [{"cell_type": "code", "source": [text], "metadata": {}, "outputs": [],
              "execution_count": None} for text in ("seed = None", "1", "1", "2")]  # fmt: skip
    ids = ({}, {"id": "kept"}, {"id": "kept"}, {"id": "not allowed"})
    some = [cell | name for cell, name in zip(cells, ids, strict=True)]
    old = [{"cell_type": "code", "input": cell["source"], "outputs": [], "language": "python",
            "metadata": {}, "collapsed": False, "prompt_number": 1} for cell in cells]  # fmt: skip
    books = {
        "4.4": {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells},
        "4.5": {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": some},
        "3": {"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": old}]},
    }
    cleaned = {}
    for name, book in books.items():
        texts = set()
        for time in range(3):
            path = tmp_path / f"{name}-{time}.ipynb"
            path.write_text(json.dumps(book))
            assert nb.canonical(path) is False
            texts.add(path.read_text())
            assert nb.canonical(path) is True
        (text,) = texts
        cleaned[name] = json.loads(text)
        found = [cell["id"] for cell in cleaned[name]["cells"]]
        assert len(set(found)) == 4 and all(map(nb.CELL_ID.fullmatch, found))
    assert cleaned["4.5"]["cells"][1]["id"] == "kept"
    assert cleaned["4.4"] == cleaned["3"] != cleaned["4.5"]


def executed(
    clock: str, cell_id: str, address: str, tree: str, pieces: list[str]
) -> nbformat.NotebookNode:
    """An executed notebook as papermill leaves it, with all that may differ from run to run."""
    book = notebook("seed = None", "seed = 0", "work()")
    book.metadata["papermill"] = {"start_time": clock, "duration": 1.5}
    book.metadata["language_info"] = {"name": "python", "version": clock}
    book.cells[1].metadata.update(tags=["injected-parameters"], papermill={"start_time": clock})
    book.cells[1]["id"] = cell_id
    cell = book.cells[2]
    cell.metadata["execution"] = {"iopub.execute_input": clock}
    stream = [new_output("stream", name="stdout", text=text) for text in pieces]
    progress = new_output("stream", name="stderr", text=f"100% {clock}")
    paths = f"code: satjepa/ tree {tree}\n{nb.root()}/runs/a and {nb.root()}\n"
    tree_line = new_output("stream", name="stdout", text=paths)
    ids = [f"{cell_id}{cell_id}-0000-1111-2222-{n:012d}" for n in (7, 8, 7)]
    shown = {"text/plain": f"<object at {address}>", "text/html": " ".join(ids)}
    shown |= {"image/png": "aGVsbG8=", "application/json": {"a": 1}}
    result = new_output("execute_result", shown)
    result.metadata["execution"] = clock
    cell.outputs = [stream[0], progress, *stream[1:], result, tree_line]
    return nb.scrub(book)


def test_scrub_makes_equal_runs_equal():
    one = executed("10:00", "aaaa", "0x7f01", "0123abc", ["loss 1\nloss", " 2\n"])
    two = executed("11:11", "bbbb", "0x7fff", "fedc987654", ["loss 1\n", "loss 2\n"])
    assert one == two
    stdout, result, tree = one.cells[2].outputs
    assert stdout.text == "loss 1\nloss 2\n"
    first, second, third = result.data.pop("text/html").split()
    assert first == third != second
    assert result.data == {
        "text/plain": "<object>",
        "image/png": "aGVsbG8=",
        "application/json": {"a": 1},
    }
    assert (
        tree.text
        == "code: satjepa/ tree of the commit whose dvc.lock lists this file\nruns/a and .\n"
    )


def test_results_survive_the_scrub():
    assert executed("1", "a", "0x1", "0123abc", ["a", "b"]) != executed(
        "1", "a", "0x1", "0123abc", ["a", "c"]
    )


def test_a_notebook_runs_in_this_checkout_with_this_interpreter(checkout: Path):
    spec = json.dumps({"argv": ["/bin/false"], "language": "python", "display_name": "x"})
    for place in ("user", "path"):  # where another Python may be registered under the same name
        kernel = checkout / place / "kernels/python3"
        kernel.mkdir(parents=True)
        (kernel / "kernel.json").write_text(spec)
    source = checkout / "notebooks/01_a.ipynb"
    look = "import sys, os, satjepa\n"
    look += "print([os.getcwd(), sys.executable, satjepa.__file__, seed, overrides])"
    nbformat.write(notebook("seed = None\noverrides = {}", look), source)
    command = [
        sys.executable,
        "-m",
        "satjepa.pipeline.run_notebook",
        "01_a.ipynb",
        "../out {x} {0}/deep/{}.ipynb",
        "-p",
        "seed",
        "3",
    ]
    command += ["-p", "overrides", "{train.steps: 4}"]
    env = os.environ | {"PYTHONPATH": str(checkout), "JUPYTER_DATA_DIR": str(checkout / "user")}
    env |= {"JUPYTER_PREFER_ENV_PATH": "0", "JUPYTER_PATH": str(checkout / "path")}
    done = subprocess.run(
        command, cwd=checkout / "notebooks", env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = [checkout, sys.executable, checkout / "satjepa/__init__.py", 3, {"train.steps": 4}]
    assert str([str(item) if isinstance(item, Path) else item for item in said]) in done.stdout
    cells = nbformat.read(checkout / "out {x} {0}/deep/{}.ipynb", 4).cells
    assert [cell["id"] for cell in cells] == ["cell-0", "injected-parameters", "cell-1"]
    assert cells[2].outputs[0].text.startswith("['.', ")
    assert nb.canonical(source)


def test_a_failing_cell_is_named_and_fails_the_command(
    checkout: Path, capsys: pytest.CaptureFixture, monkeypatch
):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    def fail(*args, **kwargs):
        raise PapermillExecutionError(
            1, 2, "1 / 0", "ZeroDivisionError", "division by zero", ["the traceback"]
        )

    nbformat.write(notebook("seed = None", "1 / 0"), checkout / "a.ipynb")
    monkeypatch.setattr(papermill, "execute_notebook", fail)
    assert nb.main(["a.ipynb", "out/a.ipynb"]) == 1
    said = capsys.readouterr().err
    assert "a.ipynb failed in cell [2]: ZeroDivisionError: division by zero" in said
    assert "out/a.ipynb" in said
    assert "the traceback" in said


def test_what_is_refused(
    checkout: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    nbformat.write(notebook("seed = None"), checkout / "a.ipynb")
    for arguments, said in [
        (["a.ipynb", "out.ipynb", "-p", "sed", "1"], "a.ipynb has no parameter sed; it has seed"),
        (["absent.ipynb", "out.ipynb"], "absent.ipynb"),
    ]:
        assert nb.main(arguments) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        nb.main(["a.ipynb"])
    monkeypatch.setenv("DVC_STAGE", "train")
    monkeypatch.setenv("SATJEPA_PARAMS", "params.table.yaml")
    assert nb.main(["a.ipynb", "out.ipynb"]) == 1
    assert "DVC reads params.yaml" in capsys.readouterr().err
    assert not (checkout / "out.ipynb").exists()


def test_clean_takes_any_number(checkout: Path):
    for name in ("a.ipynb", "b.ipynb"):
        nbformat.write(notebook("seed = None"), checkout / name)
    assert nb.main(["--clean", "a.ipynb", "b.ipynb"]) == 0
    assert nb.canonical("a.ipynb") and nb.canonical("b.ipynb")
