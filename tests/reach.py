"""Which modules of satjepa does a notebook reach? `python tests/reach.py` prints it for every stage
of dvc.yaml.

The imports are followed name by name: a function that is never reached does not pull in what it
imports. A class counts as a whole. An import for type checking only counts nothing.
"""

import ast
import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType

import yaml

REPO = Path(__file__).resolve().parents[1]


def as_checkout(folder: Path) -> Path:
    """Make `folder` what `satjepa.paths.root` takes for a checkout; returns it."""
    for name in ("dvc.yaml", "satjepa/paths.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def script(path: str) -> ModuleType:
    """A module of a file of this repository that is in no package, such as benchmarks/words.py."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPO / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tree_of(module: str) -> ast.Module | None:
    """The syntax tree of a dotted module of this repository, or None."""
    base = REPO / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return ast.parse(path.read_text())
    return None


def imported(nodes: list[ast.AST]) -> list[tuple[str, str | None]]:
    """(module, name) for every satjepa import at or below the nodes; name None where the module
    itself is imported.
    """
    found: list[tuple[str, str | None]] = []
    for node in (child for top in nodes for child in ast.walk(top)):
        if isinstance(node, ast.Import):
            found += [(a.name, None) for a in node.names if a.name.split(".")[0] == "satjepa"]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "satjepa":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole, None) if tree_of(whole) else (node.module, alias.name))
    return found


def for_types_only(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def names_of(node: ast.AST) -> set[str]:
    """The names that a top-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return {
        n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }


def reached_nodes(module: str, wanted: set[str | None]) -> list[ast.AST]:
    """The top-level statements of a module that its `wanted` names (None: all of them) lead to."""
    body = [node for node in tree_of(module).body if not for_types_only(node)]
    if None in wanted:
        return body
    names = set(wanted)
    nodes = []
    while fresh := [n for n in body if n not in nodes and names_of(n) & names]:
        nodes += fresh
        names |= {n.id for top in fresh for n in ast.walk(top) if isinstance(n, ast.Name)}
    return nodes


def reach(start: list[tuple[str, str | None]]) -> set[str]:
    """All modules that the imports `start` lead to, themselves included."""
    wanted: dict[str, set[str | None]] = {}
    todo = list(start)
    while todo:
        module, name = todo.pop()
        if tree_of(module) is None or name in wanted.get(module, set()):
            continue
        wanted.setdefault(module, set()).add(name)
        todo += imported(reached_nodes(module, wanted[module]))
    return set(wanted)


def file_of(module: str) -> str:
    """The path of a dotted module, from the repository root."""
    base = Path(module.replace(".", "/"))
    return str(base / "__init__.py" if (REPO / base).is_dir() else base.with_suffix(".py"))


def code_of(notebook: Path) -> str:
    """The code of all cells of a notebook."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def modules_of(notebook: Path) -> list[str]:
    """The files of satjepa that a notebook reaches."""
    return sorted(file_of(module) for module in reach(imported([ast.parse(code_of(notebook))])))


if __name__ == "__main__":
    for stage, entry in yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"].items():
        path = next(REPO / dep for dep in entry["deps"] if dep.endswith(".ipynb"))
        print(
            f"{stage}:",
            *(modules_of(path) if path.exists() else ["(no notebook yet)"]),
            sep="\n      - ",
        )
