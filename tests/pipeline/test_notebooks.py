"""The notebooks: committed copies that are as old as what they show, and a start from any folder
with any kernel.
"""

import base64
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from satjepa.config import load_params
from satjepa.pipeline import publish
from satjepa.pipeline.notebook import Printer
from satjepa.pipeline.workshop import SMALL

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.stem for path in (REPO / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_committed_copy_is_as_old_as_what_it_shows(name: str):
    problems = [problem for stem, problem in publish.stale(REPO) if stem == name]
    assert not problems, f"{name} {problems[0]}: python -m satjepa.pipeline.publish {name}"


def test_the_committed_copies_are_small():
    assert publish.size(REPO / publish.DOCS) <= publish.BUDGET


# ---- publish ----


def png(colours: int = 4000) -> bytes:
    from PIL import Image

    side = 64
    values = np.random.default_rng(0).integers(0, colours, (side, side))
    pixels = np.stack([values % 16 * 16, values // 16 % 16 * 16, values // 256 * 16], -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def book(code: str, picture: bytes | None = None) -> nbformat.NotebookNode:
    cells = [new_markdown_cell("# Title", id="a"), new_code_cell(code, id="b")]
    if picture is not None:
        shown = new_output("display_data", {"image/png": base64.b64encode(picture).decode()})
        cells[1].outputs = [shown]
        injected = new_code_cell("seed = 0", id="injected-parameters")
        injected.metadata["tags"] = ["injected-parameters"]
        cells.insert(1, injected)
    return new_notebook(cells=cells)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A checkout with two notebooks, executed; the second once an arm; dvc.lock knows the first."""
    for folder in ("notebooks", "reports/notebooks/02_b"):
        (tmp_path / folder).mkdir(parents=True)
    done = tmp_path / publish.DONE
    for name, copy in (("01_a", "01_a"), ("02_b", "02_b/satjepa-0"), ("02_b", "02_b/arm-0")):
        nbformat.write(book(f"{name!r}"), tmp_path / f"notebooks/{name}.ipynb")
        nbformat.write(book(f"{name!r}", png()), done / f"{copy}.ipynb")
    lock(tmp_path)
    return tmp_path


def lock(home: Path) -> None:
    outs = [
        {"path": f"{publish.DONE}/{name}.ipynb", "md5": md5(home / publish.DONE / f"{name}.ipynb")}
        for name in ("01_a", "02_b/satjepa-0")
    ]
    (home / "dvc.lock").write_text(json.dumps({"stages": {"s": {"outs": outs}}}))


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def test_publish_copies_the_run_of_a_preferred_arm(home: Path):
    assert dict(publish.stale(home)) == {"01_a": "has no copy", "02_b": "has no copy"}
    first, second = publish.publish(home)
    assert [first.name, second.name] == ["01_a.ipynb", "02_b.ipynb"]
    origin = nbformat.read(second, 4).metadata["satjepa"]
    assert origin["executed"] == f"{publish.DONE}/02_b/satjepa-0.ipynb"
    assert origin["md5"] == md5(home / origin["executed"])
    assert base64.b64decode(nbformat.read(first, 4).cells[2].outputs[0].data["image/png"]) == png()
    assert not dict(publish.stale(home))


def test_a_copy_is_old_when_notebook_or_result_changes(home: Path):
    publish.publish(home)
    nbformat.write(book("'other'"), home / "notebooks/01_a.ipynb")
    nbformat.write(book("'02_b'", png(9)), home / f"{publish.DONE}/02_b/satjepa-0.ipynb")
    lock(home)
    assert dict(publish.stale(home)) == {
        "01_a": "cell b is not that of the notebook",
        "02_b": f"dvc.lock has another {publish.DONE}/02_b/satjepa-0.ipynb",
    }
    longer = book("'01_a'")
    longer.cells.append(new_markdown_cell("more", id="c"))
    nbformat.write(longer, home / "notebooks/01_a.ipynb")
    assert dict(publish.stale(home))["01_a"] == "cell c is not that of the notebook"
    (home / "notebooks/01_a.ipynb").unlink()
    assert dict(publish.stale(home))["01_a"] == "is a copy of no notebook"


def test_what_no_stage_makes_is_as_old_as_what_it_stands_on(home: Path, monkeypatch):
    (home / "model").mkdir()
    (home / "model/weights").write_bytes(b"1")
    monkeypatch.setattr(publish, "STANDS_ON", {"01_a": ("model",)})
    (home / "dvc.lock").unlink()
    publish.publish(home)
    assert dict(publish.stale(home)) == {
        "02_b": f"dvc.lock has no {publish.DONE}/02_b/satjepa-0.ipynb"
    }
    (home / "model/weights").write_bytes(b"2")
    assert dict(publish.stale(home))["01_a"] == "model changed"


def test_pictures_get_fewer_colours_only_over_budget(home: Path):
    publish.publish(home)
    full = publish.size(home / publish.DOCS)
    publish.publish(home, budget=full - 1)
    assert publish.size(home / publish.DOCS) < full
    with pytest.raises(ValueError, match="show fewer or smaller pictures"):
        publish.publish(home, budget=1000)


def test_what_publish_refuses(home: Path):
    with pytest.raises(FileNotFoundError, match="has no 03_c"):
        nbformat.write(book("3"), home / "notebooks/03_c.ipynb")
        publish.publish(home, ["03_c"])
    nbformat.write(book("'newer'"), home / "notebooks/01_a.ipynb")
    with pytest.raises(ValueError, match="cell b is not that of"):
        publish.publish(home, ["01_a"])


# ---- what the notebooks begin with and call ----


def test_a_printer_keeps_the_means_that_it_prints(capsys):
    log = Printer(5, lines=2)
    for step in range(1, 6):
        log(step, {"loss": float(step)})
    assert log.curve().to_dict("list") == {"step": [2, 4, 5], "loss": [1.5, 3.5, 5.0]}
    assert capsys.readouterr().out == "2/5 loss 1.5000\n4/5 loss 3.5000\n5/5 loss 5.0000\n"


def test_the_small_backbone_is_smaller_and_leaves_the_shipped_one_alone():
    small, shipped = load_params(**SMALL).pretrain, load_params().pretrain
    assert (REPO / small.folder).resolve() != (REPO / shipped.folder).resolve()
    assert small.folder.startswith(".work/"), "git would see it"
    for name in ("regions", "windows", "vae_steps", "polish_steps", "steps"):
        assert getattr(small, name) < getattr(shipped, name) / 10


# ---- any folder, any kernel ----


def test_a_notebook_starts_in_any_folder_with_any_kernel(tmp_path: Path, monkeypatch):
    """Its first two code cells, copied elsewhere, run by a kernel of another name: the checkout is
    found and its parameters are read.
    """
    import papermill

    kernel = tmp_path / "share/kernels/elsewhere"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "language": "python", "display_name": "Elsewhere"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), *sys.path[:1]]))
    source = nbformat.read(REPO / "notebooks/02_captions.ipynb", 4)
    source.cells = [cell for cell in source.cells if cell.cell_type == "code"][:2]
    source.cells.append(new_code_cell("print(root, params.data.patch)", id="z"))
    nbformat.write(source, tmp_path / "copied.ipynb")
    done = papermill.execute_notebook(
        str(tmp_path / "copied.ipynb"), None, kernel_name="elsewhere", cwd=str(tmp_path),
        progress_bar=False,
    )  # fmt: skip
    assert done.cells[-1].outputs[0].text == f"{REPO} 64\n"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_names_no_path_but_below_the_root(name: str):
    """The working folder is the notebook's in Jupyter, the root under papermill: a path is `root /
    ...`, and a cell calls nothing that depends on where it runs.
    """
    cells = nbformat.read(REPO / f"notebooks/{name}.ipynb", 4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for word in ("os.getcwd", "chdir", "Path(", 'open("', "%cd", "!", "../"):
        assert word not in code.replace("!=", ""), word
    assert "begin(" in [cell.source for cell in cells if cell.cell_type == "code"][1]
