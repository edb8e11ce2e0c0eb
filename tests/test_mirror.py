"""Tests mirror the package: tests/routing/test_pools.py has those of moe_jax/routing/pools.py."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "moe_jax", ROOT / "tests"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
TEST_FILES = sorted(TESTS.rglob("test_*.py"))

# Test files that are named after a topic, because it concerns several modules.
TOPICS = {
    "test_docs.py": "pages of the repository",
    "test_house.py": "rules for all modules",
    "test_imports.py": "what no module imports early",
    "test_mirror.py": "rules for all tests",
    "test_setup_script.py": "scripts/setup.sh",
    "test_tiers.py": "rules for all tests",
    "commands/test_trust.py": "files of strangers, with every verb",
    "data/prepare/test_official.py": "all readers against TFDS's builders",
    "data/tasks/metrics/test_against_t5.py": "all metrics against T5's",
    "data/tasks/test_c4.py": "a task from its files to its batches",
    "data/test_layers.py": "imports between subpackages",
    "dispatch/test_routed.py": "every router on every dispatch",
    "dispatch/test_transports.py": "every dispatch against the oracle",
    "hlo/test_tpu_programs.py": "all readers on programs of the TPU compiler",
    "hlo/test_tpu_train_step.py": "all readers on the compiled step",
    "pods/test_compile_on_tpu.py": "from gin files to the report",
    "pods/test_pod_properties.py": "compiled steps of the files in configs/mesh",
    "routers/test_causality.py": "what every router promises",
    "routers/test_refusals.py": "what every router refuses",
    "settings/test_registered.py": "all settings of the package",
}
# Modules that are tested in another directory, by the file that does it.
TESTED_IN = {
    "test_cli.py": (
        "commands.config.show",
        "commands.exceptions",
        "commands.generate",
        "commands.startup",
        "commands.train",
        "commands.training_console",
        "commands.verb",
        "training.ahead_of_time",
    ),
    "test_waiting.py": ("library_output",),
    "commands/config/test_check.py": ("runs.dry_run",),
    "commands/test_bench.py": (
        "benchmarks.adaptive",
        "benchmarks.generation",
        "benchmarks.pipeline",
    ),
    "commands/test_data.py": ("runs.scoring",),
    "data/pipeline/test_curriculum.py": ("data.sources.curriculum_source",),
    "data/pipeline/test_feature_converters.py": ("data.batch",),
    "data/pipeline/test_input_pipeline.py": ("data.config",),
    "data/sources/test_file_patterns.py": ("run_files",),
    "data/tasks/generation/test_generation_tasks.py": ("data.tasks.feature_specs",),
    "data/tasks/test_objectives.py": ("data.span_corruption",),
    "e2e/test_processes.py": ("data.pipeline.device_batches",),
    "invariance/test_mesh_expert_choice.py": ("dispatch.implicit_expert_parallel",),
    "pods/test_compile_on_tpu.py": ("pods.compiler_process",),
    "routers/test_capped_expert_choice.py": ("routing.optimal_transport",),
    "routers/test_token_choice.py": (
        "routers.glam",
        "routers.gshard",
        "routers.switch",
        "routing.selection",
    ),
    "routers/test_token_choice_properties.py": ("routing.position_in_expert",),
    "runs/test_calibration.py": ("commands.calibrate", "commands.calibration_report"),
    "runs/test_curves.py": ("commands.plot",),
    "runs/test_status.py": ("commands.status", "commands.status_table"),
    "sharding/test_processes.py": ("commands.cpu_devices",),
    "testing/test_router_contract.py": ("routing.router",),
}
ELSEWHERE = {f"moe_jax.{name}": file for file, names in TESTED_IN.items() for name in names}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imported(path: Path) -> set[str]:
    """Returns the dotted names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def defining_modules() -> dict[str, str]:
    """Returns the modules of the names that packages import for their users."""
    found = {}
    for path in PACKAGE.rglob("__init__.py"):
        for name in imported(path):
            module, _, last = name.rpartition(".")
            found[f"{dotted(path.parent)}.{last}"] = module
    return found


DEFINED_IN = defining_modules()
IMPORTS = {
    path: names | {DEFINED_IN[name] for name in names if name in DEFINED_IN}
    for path in [*MODULES, *TEST_FILES]
    for names in [imported(path)]
}


def has_public_names(module: Path) -> bool:
    body = ast.parse(module.read_text()).body
    named = [node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return any(not name.startswith("_") for name in named)


def is_tested(module: Path, above: frozenset[Path] = frozenset()) -> bool:
    """Has tests in the directory of the same name, or is a part of a module there that has."""
    directory = TESTS / module.relative_to(PACKAGE).parent
    named = [*directory.glob(f"test_{module.stem}.py"), *directory.glob(f"test_{module.stem}_*.py")]
    if named or (directory.parent / f"test_{directory.name}.py").exists():
        return True
    if any(dotted(module) in IMPORTS[path] for path in directory.glob("test_*.py")):
        return True
    users = [path for path in MODULES if path.parent == module.parent]
    return any(
        is_tested(user, above | {module})
        for user in users
        if user not in above and dotted(module) in IMPORTS[user]
    )


def package_directory(test_file: Path) -> Path:
    return PACKAGE / test_file.relative_to(TESTS).parent


@pytest.mark.parametrize(
    "path",
    [path for path in TEST_FILES if package_directory(path).is_dir()],
    ids=lambda p: p.relative_to(TESTS).as_posix(),
)
def test_a_test_file_is_named_after_a_module_or_a_topic(path):
    """`test_pools.py`, or `test_pools_TOPIC.py` where a module has several."""
    name = path.relative_to(TESTS).as_posix()
    items = package_directory(path).iterdir()
    beside = {item.stem for item in items if item.is_dir() or item.suffix == ".py"}
    stem = path.stem.removeprefix("test_")
    is_mirrored = any(stem == module or stem.startswith(f"{module}_") for module in beside)
    assert is_mirrored != (name in TOPICS), "rename it, or correct TOPICS"


@pytest.mark.parametrize("module", [path for path in MODULES if has_public_names(path)], ids=dotted)
def test_a_module_is_tested_in_the_directory_of_its_name(module):
    assert is_tested(module) != (dotted(module) in ELSEWHERE), "move its test, or correct TESTED_IN"


def test_the_tables_name_what_is_there():
    missing = [name for name in (*TOPICS, *TESTED_IN) if not (TESTS / name).exists()]
    known = {dotted(module) for module in MODULES}
    assert missing + sorted(set(ELSEWHERE) - known) == []
