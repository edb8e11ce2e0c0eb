"""The rules of the house: the direction of imports, lengths of files, functions and signatures."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "moe_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the top down; a module may import from its own layer and from those after it.
LAYERS = [
    ["cli", "__init__"],
    ["commands"],
    ["finetuning"],
    ["compare"],
    ["benchmarks"],
    ["pods"],
    ["runs"],
    ["cost_model"],
    ["experiments"],
    ["evaluation"],
    ["training"],
    ["data"],
    ["flops"],
    ["models"],
    ["sharding"],
    ["testing"],
    ["dispatch"],
    ["routers"],
    ["routing"],
    ["types"],
    ["config", "config_choice", "registration"],
    ["gin_errors"],
    ["gin_registry"],
    ["gin_imports", "gin_network_paths", "nested_settings"],
    ["gin_statements", "gin_reader"],
    ["strict_json"],
    ["settings"],
    ["waiting", "jax_environment", "library_output"],
    ["hlo"],
    ["errors"],
    ["formatting", "renamed_settings", "run_files", "config_source"],
    ["version"],
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
def test_files_functions_and_parameter_lists_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, node.name
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len([a for a in taken if a.arg not in ("self", "cls")]) <= 6, node.name


def test_the_median_file_is_short():
    lengths = sorted(path.read_text().count("\n") for path in FILES)
    assert lengths[len(lengths) // 2] <= 180


# Names by which a file or a text becomes code.
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
RUNS_CODE |= {"importlib.import_module", "os.system", "os.popen", "runpy.run_path"}
UNPACKS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
# What may use one of them, and for what.
EXCEPTIONS = {
    ("gin_imports.py", "importlib.import_module"),  # modules that the user permits
    ("routers/__init__.py", "importlib.import_module"),  # the modules beside it
}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_nothing_makes_code_of_files_or_texts(path):
    """See docs/guides/security.md: no pickles, no evaluated text, no shell."""
    name, tree = path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name.split(".")[0] for alias in node.names}
            names |= {(getattr(node, "module", None) or "").split(".")[0]}
            assert not names & UNPACKS_CODE, names & UNPACKS_CODE
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in RUNS_CODE or (name, called) in EXCEPTIONS, called
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert given.get("shell", "False") == "False"
        if called == "np.load":
            assert given.get("allow_pickle") == "False", "np.load(..., allow_pickle=False)"
