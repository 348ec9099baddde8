"""The rules of the house (DESIGN): small rooms, words on the door, imports that go down only, no
pickles.
"""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from reach import REPO, for_types_only, tree_of

FILES = sorted((REPO / "satjepa").rglob("*.py"))
TESTS = sorted((REPO / "tests").rglob("*.py"))
# The wings of the package, from the ground up: what stands in one may import its own wing and those
# before it. Every entry of satjepa/ stands here; nothing has a place by default.
WINGS = (
    "paths", "contracts", "config", "metrics", "data", "captions", "models", "training", "demo",
    "assemble", "baselines", "evaluation", "figures", "forecast", "region", "published",
    "pipeline", "cli",
)  # fmt: skip
LOOPS = {
    ("loop.py", "train"): 77,
    ("fit.py", "fit"): 50,
}  # flat loops, each read from top to bottom
HEAVY = {
    "diffusers",
    "rasterio",
    "rioxarray",
    "dvc",
    "papermill",
    "lpips",
    "nbformat",
    "torch_fidelity",
    "pystac_client",
}
# Calls that make a file: each stands inside `with paths.replaced(...) as part`, or here.
WRITERS = {"write_text", "write_bytes", "to_csv", "to_parquet", "save_file", "savefig"}
IN_PLACE = {
    ("plots.py", "show"),  # to memory
    ("log.py", "open"),  # a line is added to it at a time, and its rows are in the checkpoint
    ("checkpoint.py", "_write"),  # inside a folder that is renamed as a whole
    ("write.py", "check_place"),  # a trial, which is removed
    ("write.py", "_write"),  # the part of its caller, `write_layer`, which renames it
}
IDS = {"ids": lambda path: str(path.relative_to(REPO))}


def lines_of(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    size = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node):
        size -= node.body[0].end_lineno - node.body[0].lineno + 1
    return size


def defined(path: Path) -> list[tuple[str, ast.AST, bool]]:
    """(name, node, public) of every class and function of a file; one inside a function is not
    public.
    """
    found = []

    def walk(node: ast.AST, prefix: str, public: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                shown = public and not child.name.startswith("_")
                found.append((prefix + child.name, child, shown))
                walk(child, f"{prefix}{child.name}.", shown and isinstance(child, ast.ClassDef))
            else:
                walk(child, prefix, public)

    walk(ast.parse(path.read_text()), "", True)
    return found


@pytest.mark.parametrize("path", FILES + TESTS, **IDS)
def test_a_file_is_no_longer_than_300_lines(path: Path):
    assert len(path.read_text().splitlines()) <= (350 if path in TESTS else 300)


@pytest.mark.parametrize("path", FILES, **IDS)
def test_functions_are_short(path: Path):
    functions = [
        (name, node) for name, node, _ in defined(path) if not isinstance(node, ast.ClassDef)
    ]
    assert not [
        (name, lines_of(node))
        for name, node in functions
        if lines_of(node) > LOOPS.get((path.name, name), 40)
    ]
    forwards = [(name, node) for name, node in functions if name.split(".")[-1] == "forward"]
    assert not [(name, lines_of(node)) for name, node in forwards if lines_of(node) > 25]


@pytest.mark.parametrize("path", [p for p in FILES if p.read_text().strip()], **IDS)
def test_what_is_public_has_a_docstring_and_types(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), "the module itself"
    public = [(name, node) for name, node, shown in defined(path) if shown]
    assert not [name for name, node in public if not ast.get_docstring(node)]
    functions = [(name, node) for name, node in public if not isinstance(node, ast.ClassDef)]
    assert not [name for name, node in functions if node.returns is None]
    arguments = [
        (name, a)
        for name, f in functions
        for a in [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
    ]
    assert not [
        f"{name}({a.arg})"
        for name, a in arguments
        if a.annotation is None and a.arg not in ("self", "cls")
    ]


def runtime_imports(path: Path) -> list[tuple[str, int]]:
    """(dotted name, column) of every import that is not for type checking only; column 0 is the top
    level.
    """
    found = []

    def walk(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, child.col_offset) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                found.extend(
                    (f"{child.module}.{alias.name}", child.col_offset) for alias in child.names
                )
            if not for_types_only(child):
                walk(child)

    walk(ast.parse(path.read_text()))
    return found


def wing_of(path: Path) -> str:
    """The wing that a file of the package stands in."""
    return path.relative_to(REPO / "satjepa").with_suffix("").parts[0]


def reached_from(path: Path) -> list[str]:
    """The modules of satjepa that a file imports, wherever in it, for types or not: "data.cube"."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                found.append(name if tree_of(name) else node.module)
    return [name.removeprefix("satjepa.") for name in found if name.startswith("satjepa.")]


def test_every_entry_of_the_package_is_a_wing():
    folder = REPO / "satjepa"
    names = [f.stem for f in folder.glob("*.py")] + [
        f.parent.name for f in folder.glob("*/__init__.py")
    ]
    assert sorted(names) == sorted(["__init__", *WINGS])
    assert len(names) <= 20


@pytest.mark.parametrize("path", [p for p in FILES if wing_of(p) != "__init__"], **IDS)
def test_imports_go_down_only(path: Path):
    below = WINGS[: WINGS.index(wing_of(path)) + 1]
    assert not [name for name in reached_from(path) if name.split(".")[0] not in below]


def test_no_modules_import_each_other_in_a_circle():
    """A door (`__init__.py`) apart, which imports what stands behind it."""
    arrows = {
        ".".join(path.relative_to(REPO / "satjepa").with_suffix("").parts): set(reached_from(path))
        for path in FILES
        if path.name != "__init__.py"
    }
    TopologicalSorter(arrows).prepare()  # raises CycleError


@pytest.mark.parametrize("path", FILES, **IDS)
def test_heavy_packages_are_imported_where_they_are_used(path: Path):
    """So that `import satjepa.x` is quick, and works on a machine that lacks them."""
    assert not [
        name
        for name, column in runtime_imports(path)
        if column == 0 and name.split(".")[0] in HEAVY
    ]


COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


@pytest.mark.parametrize("path", FILES, **IDS)
def test_no_comprehension_stands_in_another(path: Path):
    """A loop, or two steps with a name between them, reads better."""
    outer = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, COMPREHENSIONS)]
    inner = [(node.lineno, [*ast.walk(node)][1:]) for node in outer]
    assert not [line for line, below in inner if any(isinstance(n, COMPREHENSIONS) for n in below)]


@pytest.mark.parametrize("path", FILES, **IDS)
def test_one_statement_gives_one_value(path: Path):
    """`a, b = x, y` is two statements; a swap, and the parts of one value, are taken apart."""
    pairs = [
        (
            node.lineno,
            [ast.unparse(n) for n in target.elts],
            [ast.unparse(n) for n in node.value.elts],
        )
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
        for target in node.targets
        if isinstance(target, ast.Tuple)
    ]
    assert not [line for line, names, values in pairs if sorted(names) != sorted(values)]


def writes_a_file(call: ast.Call) -> bool:
    """Whether a call makes a file under the name that it is given."""
    name = ast.unparse(call.func)
    last = name.split(".")[-1]
    modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args[1:2]
    opens = last == "open" and any(ast.unparse(mode)[:2] in ("'w", "'x") for mode in modes)
    ours = name == "write_text"  # of satjepa.paths
    return (last in WRITERS and not ours) or name in ("np.save", "torch.save") or opens


def written_in_place(path: Path) -> list[tuple[str, int]]:
    """(function, line) of every call that makes a file outside `with replaced(...)`."""
    places = []

    def walk(node: ast.AST, function: str, safe: bool) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        if isinstance(node, ast.With):
            names = [ast.unparse(item.context_expr) for item in node.items]
            safe = safe or names[0].startswith("replaced(")
        if isinstance(node, ast.Call) and writes_a_file(node) and not safe:
            places.append((function, node.lineno))
        for child in ast.iter_child_nodes(node):
            walk(child, function, safe)

    walk(ast.parse(path.read_text()), "", False)
    return places


@pytest.mark.parametrize("path", FILES, **IDS)
def test_a_file_is_written_beside_then_renamed(path: Path):
    """So that nobody reads the half of one: `satjepa.paths.replaced` is the one way."""
    places = [(path.name, name, line) for name, line in written_in_place(path)]
    assert not [place for place in places if place[:2] not in IN_PLACE]


@pytest.mark.parametrize("path", FILES + [p for p in TESTS if p.name != "test_house.py"], **IDS)
def test_a_pickle_is_read_with_weights_only(path: Path):
    pickles = {name.split(".")[0] for name, _ in runtime_imports(path)} & {
        "pickle",
        "joblib",
        "dill",
        "cloudpickle",
    }
    assert not pickles or path in TESTS
    for call in (
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ):
        options = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        assert options.get("allow_pickle") is not True
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func) == "torch.load":
            assert options.get("weights_only") is True, f"{path.name}:{call.lineno}"
