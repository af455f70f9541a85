"""The border that a machine guards: which file may name an array library."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARRAY_LIBRARIES = {"numpy", "cupy", "torch", "jax", "array_api_strict", "numba", "dask"}
# Rooms for people may use NumPy for what lives on the host.
FOR_PEOPLE = {
    "cli",
    "ensembles",
    "estimators",
    "persistence",
    "plot",
    "search",
    "tabular",
}  # files and folders
MATHEMATICS = sorted(p for p in (ROOT / "gpunet").glob("*.py") if p.stem not in FOR_PEOPLE)
ALL = sorted((ROOT / "gpunet").rglob("*.py"))


def imports(path):
    """Return the modules a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return found


@pytest.mark.parametrize("path", MATHEMATICS, ids=lambda path: path.stem)
def test_the_mathematics_imports_no_array_library(path):
    named = {module.partition(".")[0] for module in imports(path)}
    assert not named & ARRAY_LIBRARIES
    assert not imports(path) & {f"array_api_compat.{library}" for library in ARRAY_LIBRARIES}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_no_room_imports_a_backend(path):
    assert not {module for module in imports(path) if module.startswith("gpunet.backends")}


@pytest.mark.parametrize("path", sorted(set(ALL) - set(MATHEMATICS)), ids=lambda path: path.stem)
def test_the_rooms_for_people_import_numpy_at_most(path):
    named = {module.partition(".")[0] for module in imports(path)}
    assert named & ARRAY_LIBRARIES <= {"numpy"}


RANK = [
    {"typing", "notices"},
    {"activations", "streaming"},
    {"losses", "optimizers", "schedules", "initializers", "sparse", "dropout", "loss_scaling"},
    {"primitives"},
    {"network", "scores", "backend"},
    {"description", "gradient_check", "memory"},
    {"step", "examples"},
    {"training"},
    {"runs"},
    {"lbfgs", "stacks", "progress"},
    {"fitting"},
    {"model"},
]
LEVEL = {name: level for level, names in enumerate(RANK) for name in names}


@pytest.mark.parametrize(
    "path",
    [path for path in MATHEMATICS if path.stem not in ("__init__", "__main__")],
    ids=lambda path: path.stem,
)
def test_imports_point_one_way(path):
    """A room imports at its top only rooms below it; a late import inside a function is for reading and writing."""
    tree = ast.parse(path.read_text())
    used = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpunet"):
            parts = node.module.split(".")
            used |= {parts[1]} if len(parts) > 1 else {name.name for name in node.names}
    assert {name for name in used if LEVEL[name] >= LEVEL[path.stem]} == set()


CUPY = sorted((ROOT / "backends" / "cupy").glob("*.py")) + sorted(
    (ROOT / "scripts").rglob("_gpu/*.py")
)


@pytest.mark.parametrize("path", CUPY, ids=lambda path: path.stem)
def test_what_cupy_makes_when_asked_is_asked_for(path):
    """cupy.cuda.cublas, say, is an attribute and no module: ``import cupy.cuda.cublas`` fails, and only on a GPU."""
    statements = [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)
    ]
    names = {name.name for statement in statements for name in statement.names}
    assert not {name for name in names if name.startswith("cupy.")}
