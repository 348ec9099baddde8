"""Run one notebook headless through papermill: `python -m satjepa.pipeline.run_notebook IN OUT -p
name value`.

What papermill alone leaves to the caller: the output folder, the kernel of this very interpreter,
the repository root as working folder, a refusal of parameters that the notebook does not have, and
an executed copy without clocks, random ids and addresses, so that equal runs give equal bytes and
dvc.lock changes only when results do. `python -m satjepa.pipeline.run_notebook --clean NOTEBOOK
...` only brings notebooks to the form that git holds.
"""

import argparse
import ast
import hashlib
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satjepa.config.yaml12 import YamlError, loads
from satjepa.paths import root, write_text
from satjepa.pipeline.kernel import own_kernel_manager

CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def canonical(path: str | Path, write: bool = True) -> bool:
    """Bring a notebook to the form that git holds: no outputs, no counts, no metadata but tags,
    cell ids kept. A cell without an id gets one of its place and its text.

    Returns whether it already was so; with `write`, it is so afterwards. The hash of a notebook in
    dvc.lock is then the hash of what git has, whoever opened it in between.
    """
    import nbformat

    text = Path(path).read_text(encoding="utf-8")
    notebook = nbformat.reads(_with_ids(text), 4)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat = 4
    notebook.nbformat_minor = 5
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    wanted = nbformat.writes(notebook) + "\n"
    if write and wanted != text:
        write_text(path, wanted)
    return wanted == text


def _with_ids(text: str) -> str:
    """A notebook's JSON of format 4.5, in which each cell has an id and no two have the same.

    Good ids that are there stay, of equal ones the first; nbformat would draw the missing ones at
    random.
    """
    import nbformat

    notebook = json.loads(text)
    if notebook.get("nbformat") != 4:
        notebook = nbformat.convert(nbformat.reads(text, nbformat.NO_CONVERT), 4)
        for cell in notebook["cells"]:
            cell.pop("id", None)  # drawn at random a moment ago
    taken = {cell.get("id") for cell in notebook["cells"]}
    kept = set()
    for place, cell in enumerate(notebook["cells"]):
        name = cell.get("id")
        if not CELL_ID.fullmatch(str(name or "")) or name in kept:
            name = _new_id(place, cell, taken)
        cell["id"] = name
        kept.add(name)
        taken.add(name)
    return json.dumps(notebook | {"nbformat_minor": max(5, notebook["nbformat_minor"])})


def _new_id(place: int, cell: dict[str, Any], taken: set[str]) -> str:
    """Eight digits of the hash of a cell's place, kind and text, as nbformat's ids look."""
    source = "".join(cell["source"])
    for salt in itertools.count():
        key = f"{salt}\0{place}\0{cell['cell_type']}\0{source}"
        name = hashlib.sha256(key.encode()).hexdigest()[:8]
        if name not in taken:
            return name
    raise AssertionError("there is always another hash")


def scrub(notebook: Any) -> Any:
    """Take out of an executed notebook what differs between two equal runs; returns the same
    object.

    What goes: papermill's clock and timings, the random id of the injected cell, everything on
    stderr (progress bars: the log of the run has them), how stdout was cut into pieces, the pace of
    training, object addresses, random ids in HTML, the folder of the checkout, and the git tree
    that `satjepa.pipeline.notebook.begin` prints (the commit that records the hash of this copy
    answers for it).
    """
    import nbformat

    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell["id"] = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                _scrub_output(output)
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """The outputs without stderr; stdout that nothing else interrupts is one piece."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if kept and output.output_type == "stream" and kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _scrub_output(output: Any) -> None:
    output.get("metadata", {}).pop("execution", None)
    if output.output_type == "stream":
        output.text = _scrub_text(output.text)
    for mime, value in output.get("data", {}).items():
        if mime.startswith("text/"):
            output.data[mime] = _scrub_text(value)


def _scrub_text(text: str) -> str:
    text = re.sub(
        r"  \S+ images/s  \S+ to go\b", "", text
    )  # the pace of training, as train_log prints it
    text = re.sub(r" at 0x[0-9a-f]+", "", text).replace(f"{root()}/", "").replace(str(root()), ".")
    ids: dict[
        str, str
        # of xarray's folding sections: still different from each other, but the same in every run
    ] = {}
    uuid = "-".join(f"[0-9a-f]{{{length}}}" for length in (8, 4, 4, 4, 12))
    text = re.sub(
        uuid,
        lambda found: ids.setdefault(found[0], f"{len(ids):08d}-0000-0000-0000-000000000000"),
        text,
    )
    return re.sub(
        r"\btree [0-9a-f]{7,40}\b", "tree of the commit whose dvc.lock lists this file", text
    )


def run(source: str | Path, out: str | Path, parameters: dict[str, Any]) -> None:
    """Execute `source` with `parameters` in the repository root and write the scrubbed copy to
    `out`.

    Raises ValueError for a parameter that the cell tagged `parameters` does not set, and
    papermill's PapermillExecutionError where a cell fails (`out` then holds the notebook as far as
    it came).
    """
    import nbformat
    import papermill

    if not canonical(source):
        print(
            f"{source}: outputs and metadata taken out, so that dvc.lock records what git will hold"
        )
    known = _parameters(nbformat.read(source, 4))
    if unknown := set(parameters) - known:
        raise ValueError(
            f"{source} has no parameter {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}"
        )
    if "DVC_STAGE" in os.environ and "SATJEPA_PARAMS" in os.environ:
        raise ValueError(
            "SATJEPA_PARAMS is set, but DVC reads params.yaml: unset it, and use make repro "
            "PARAMS=FILE"
        )
    os.environ.setdefault("PYTHONHASHSEED", "0")
    source = Path(source).resolve()
    out = Path(out).resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        _literal(source),
        _literal(out),
        parameters,
        kernel_name="python3",
        kernel_manager_class=own_kernel_manager(),
        cwd=str(root()),
        progress_bar=False,
        log_output=True,
    )
    write_notebook(scrub(nbformat.read(out, 4)), out)


def write_notebook(notebook: Any, path: Path) -> None:
    """Write a notebook in one piece."""
    import nbformat

    write_text(path, nbformat.writes(notebook) + "\n")


def _literal(path: Path) -> str:
    """A path that papermill, to which each is a format string, takes as it is."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _parameters(notebook: Any) -> set[str]:
    """The names that the cell tagged `parameters` assigns."""
    cells = [
        cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    ]
    assigned = [
        node for cell in cells for node in ast.parse(cell).body if isinstance(node, ast.Assign)
    ]
    return {
        target.id for node in assigned for target in node.targets if isinstance(target, ast.Name)
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m satjepa.pipeline.run_notebook", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "notebooks", nargs="+", metavar="NOTEBOOK", help="IN and OUT, or with --clean any number"
    )
    parser.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="VALUE is YAML"
    )
    parser.add_argument(
        "--clean", action="store_true", help="only bring the notebooks to the form that git holds"
    )
    args = parser.parse_args(argv)
    if args.clean:
        for path in args.notebooks:
            canonical(path)
        return 0
    if len(args.notebooks) != 2:
        parser.error("give IN and OUT")
    try:
        parameters = {name: loads(value) for name, value in args.p}
    except YamlError as error:
        parser.error(f"argument -p: {error}")
    return _run_and_tell(*args.notebooks, parameters)


def _run_and_tell(source: str, out: str, parameters: dict[str, Any]) -> int:
    from papermill.exceptions import PapermillExecutionError

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        run(source, out, parameters)
    except PapermillExecutionError as error:
        print(
            f"{error}\n{source} failed in cell [{error.exec_count}]: {error.ename}: {error.evalue}",
            file=sys.stderr,
        )
        print(f"as far as it came, it is in {out}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{source}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
