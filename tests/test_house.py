"""The rules of the house: which way imports point, how long files and functions are."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "moe_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down; a module may import from its own layer and from those after it.
LAYERS = [
    ["cli"],
    ["commands"],
    ["benchmarks"],
    ["pods"],
    ["experiment"],
    ["evaluation"],
    ["training"],
    ["data"],
    ["flops"],
    ["models"],
    ["sharding"],
    ["dispatch"],
    ["routing"],
    ["types"],
    ["config"],
    ["waiting"],
    ["errors"],
    ["version", "__init__"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "moe_jax":
                names |= {f"moe_jax.{alias.name}" for alias in node.names}
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    layers = {n.split(".")[1] for n in names if n.startswith("moe_jax.")}
    return {"version" if layer == "__version__" else layer for layer in layers}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    own = RANK[layer_of(path)]
    for layer in imported_layers(ast.parse(path.read_text())):
        assert RANK[layer] >= own, f"{path.name} imports {layer}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name


def test_the_median_file_is_short():
    lengths = sorted(path.read_text().count("\n") for path in FILES)
    assert lengths[len(lengths) // 2] <= 180
