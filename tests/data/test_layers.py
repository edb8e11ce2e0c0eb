"""The subpackages of `moe_jax.data`: import direction and file names."""

import ast
import collections
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "moe_jax" / "data"
FILES = sorted(PACKAGE.rglob("*.py"))

# The subpackages that each may import; all may import modules directly in `moe_jax.data`.
ALLOWED = {
    "sources": set(),
    "tasks": {"sources"},
    "pipeline": {"sources", "tasks"},
    "prepare": {"sources", "tasks"},
}


def subpackage_of(parts):
    return parts[0] if parts and parts[0] in ALLOWED else None


def imported_subpackages(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    parts = [n.split(".")[2:] for n in names if n.startswith("moe_jax.data.")]
    return {subpackage_of(part) for part in parts} - {None}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_between_subpackages_point_one_way(path):
    subpackage = subpackage_of(path.relative_to(PACKAGE).parts)
    # Modules directly in the package are the base of all subpackages.
    allowed = {subpackage, *ALLOWED[subpackage]} if subpackage else set()
    assert imported_subpackages(path) <= allowed


def test_every_module_is_in_a_subpackage_or_in_the_base():
    base = {path.stem for path in PACKAGE.glob("*.py")}
    assert base == {
        "__init__",
        "batch",
        "config",
        "dataset_info",
        "import_tensorflow",
        "span_corruption",
    }
    subpackages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert subpackages == set(ALLOWED)


def test_no_two_files_have_one_name():
    names = collections.Counter(path.name for path in FILES if path.name != "__init__.py")
    assert [name for name, count in names.items() if count > 1] == []
