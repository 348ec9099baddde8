"""Executed notebooks for readers: `python -m satjepa.pipeline.publish` copies what the pipeline has
executed (reports/notebooks/, not in git) to docs/notebooks/, where a code host shows the pictures.

Each copy notes, in its metadata, which executed notebook it is and the md5 of that, which dvc.lock
has too; where no stage makes it, the sha256 of what it stands on. `stale` says what is older than
that, and `--check` prints it.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from satjepa.paths import REPORTS, root
from satjepa.pipeline.run_notebook import write_notebook

DONE = f"{REPORTS}/notebooks"
DOCS = "docs/notebooks"
BUDGET = 6_000_000  # bytes of all copies together
COLOURS = (256, 128, 64, 32)  # of a PNG, fewer and fewer until the copies fit
PREFERRED = ("satjepa", "unet")  # arms whose run is shown, of a notebook that runs once an arm
# What a notebook stands on that is no out of a stage: 04 is frozen, and a small run is shown.
STANDS_ON = {"04_backbone": ("assets/tiny_sd3",)}


def executed(home: Path, stem: str) -> Path | None:
    """The executed copy of notebooks/<stem>.ipynb in reports/notebooks: the one of that name; of a
    notebook that runs once an arm (in a folder of its name, or <stem>-<run>.ipynb) that of a
    preferred arm, else the first; None where there is none.
    """
    done = home / DONE
    if (done / f"{stem}.ipynb").exists():
        return done / f"{stem}.ipynb"
    runs = sorted([*done.glob(f"{stem}-*.ipynb"), *(done / stem).glob("*.ipynb")])

    def rank(path: Path) -> tuple[int, str]:
        arm = path.stem.removeprefix(f"{stem}-").rpartition("-")[0]
        return PREFERRED.index(arm) if arm in PREFERRED else len(PREFERRED), str(path)

    return min(runs, key=rank, default=None)


def publish(home: Path, stems: Sequence[str] = (), budget: int = BUDGET) -> list[Path]:
    """Copy the executed notebooks of some names, or of all that have been executed; returns the
    copies. Pictures of all copies get fewer colours where they are larger than `budget` together.

    Raises FileNotFoundError for a name that has not been executed, ValueError for one whose source
    has changed since, or where even the fewest colours do not fit.
    """
    import nbformat

    copies = []
    for source in sorted((home / "notebooks").glob("*.ipynb")):
        if stems and source.stem not in stems:
            continue
        path = executed(home, source.stem)
        if path is None:
            if stems:
                raise FileNotFoundError(f"{home / DONE} has no {source.stem}: run it first")
            continue
        notebook = nbformat.read(path, 4)
        if cell := _other_cell(nbformat.read(source, 4), notebook):
            raise ValueError(f"{path}: cell {cell} is not that of {source}: run it again")
        notebook.metadata["satjepa"] = _origin(home, path, source.stem)
        copies.append(home / DOCS / source.name)
        write_notebook(notebook, copies[-1])
    _fit(home / DOCS, budget)
    return copies


def stale(home: Path) -> Iterator[tuple[str, str]]:
    """(name, what is wrong) of each notebook whose copy is missing, or older than what it shows."""
    import nbformat

    outs = _outs(home)
    for source in sorted((home / "notebooks").glob("*.ipynb")):
        copy = home / DOCS / source.name
        if not copy.exists():
            yield source.stem, "has no copy"
            continue
        notebook = nbformat.read(copy, 4)
        origin = notebook.metadata.get("satjepa", {})
        if cell := _other_cell(nbformat.read(source, 4), notebook):
            yield source.stem, f"cell {cell} is not that of the notebook"
        elif origin.get("executed") in outs:
            if outs[origin["executed"]] != origin["md5"]:
                yield source.stem, f"dvc.lock has another {origin['executed']}"
        elif origin.get("stands_on", {}) != _stands_on(home, source.stem):
            yield source.stem, f"{', '.join(_stands_on(home, source.stem))} changed"
        elif source.stem not in STANDS_ON:
            yield source.stem, f"dvc.lock has no {origin.get('executed')}"
    for copy in sorted((home / DOCS).glob("*.ipynb")):
        if not (home / "notebooks" / copy.name).exists():
            yield copy.stem, "is a copy of no notebook"


def size(folder: Path) -> int:
    """Bytes of the notebooks in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.ipynb"))


def fewer_colours(png: bytes, colours: int) -> bytes:
    """A PNG with a palette of at most so many colours; as it was where that is no smaller."""
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return min(buffer.getvalue(), png, key=len)


def _fit(folder: Path, budget: int) -> None:
    """Give the pictures of all notebooks in a folder fewer colours until they fit."""
    import nbformat

    for colours in COLOURS:
        if size(folder) <= budget:
            return
        for path in folder.glob("*.ipynb"):
            notebook = nbformat.read(path, 4)
            for data in _pictures(notebook):
                png = fewer_colours(base64.b64decode(data["image/png"]), colours)
                data["image/png"] = base64.b64encode(png).decode()
            write_notebook(notebook, path)
    if size(folder) > budget:
        raise ValueError(
            f"{folder}: {size(folder):,} bytes with {COLOURS[-1]} colours, at most {budget:,}: "
            "show fewer or smaller pictures"
        )


def _pictures(notebook: Any) -> Iterator[Any]:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output["data"]


def _other_cell(source: Any, copy: Any) -> str:
    """The id of the first cell in which an executed notebook differs from its source; "" for none.
    The cell of parameters that papermill puts in does not count.
    """
    injected = "injected-parameters"
    mine = [c for c in copy.cells if injected not in c.metadata.get("tags", [])]
    for one, other in zip(source.cells, mine, strict=False):
        if (one.cell_type, one.source) != (other.cell_type, other.source):
            return one["id"]
    longer = max(source.cells, mine, key=len)
    both = min(len(source.cells), len(mine))
    return longer[both]["id"] if len(longer) > both else ""


def _origin(home: Path, path: Path, stem: str) -> dict[str, Any]:
    origin: dict[str, Any] = {"executed": path.relative_to(home).as_posix()}
    origin["md5"] = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return origin | ({"stands_on": _stands_on(home, stem)} if stem in STANDS_ON else {})


def _stands_on(home: Path, stem: str) -> dict[str, str]:
    """sha256 over names and bytes of the files below each path that a notebook stands on."""
    found = {}
    for name in STANDS_ON.get(stem, ()):
        digest = hashlib.sha256()
        for path in sorted(p for p in (home / name).rglob("*") if p.is_file()):
            digest.update(path.relative_to(home).as_posix().encode())
            digest.update(path.read_bytes())
        found[name] = digest.hexdigest()
    return found


def _outs(home: Path) -> dict[str, str]:
    """md5 of every out of dvc.lock, by its path; none where there is no dvc.lock."""
    from satjepa.config import yaml12

    lock = home / "dvc.lock"
    stages = yaml12.loads(lock.read_text())["stages"] if lock.exists() else {}
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m satjepa.pipeline.publish", description=__doc__.split("\n")[0]
    )
    parser.add_argument("notebooks", nargs="*", metavar="NAME", help="00_one_patch, ...; all")
    parser.add_argument("--check", action="store_true", help="only say which copies are old")
    args = parser.parse_args(argv)
    home = root()
    if args.check:
        problems = [f"{name}: {problem}" for name, problem in stale(home)]
        print("\n".join(problems) or f"{DOCS} is current")
        return int(bool(problems))
    try:
        copies = publish(home, args.notebooks)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for copy in copies:
        print(f"{copy.relative_to(home)}  {copy.stat().st_size:,} bytes")
    print(f"{DOCS}: {size(home / DOCS):,} bytes of {BUDGET:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
