"""Settings that have to be made before JAX or TensorFlow start."""

import atexit
import gc
import itertools
import os
import shutil
import signal
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# See scripts/test.sh: too few threads for virtual devices hang in jax 0.10.2.
os.environ.setdefault("NPROC", "16")
# Errors are one line; on a busy machine what is waited for would be others.
os.environ["MOE_JAX_WAITING"] = "0"

# Ignored where a shell has started the tests in the background, and tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiled functions are shared by the two workers and by all processes that tests start: most of
# them train the same tiny model. Made by the first process; the others find it in the environment.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="moe_jax_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

import array_checks
import compiling
import jax

# Before any of its packages is imported.
array_checks.install()

# Traces make next to no garbage, and looking for it among all that earlier tests have left takes
# a tenth of the time.
gc.set_threshold(100_000, 50, 100)

# Virtual devices for the tests of meshes. Not by XLA_FLAGS: processes that tests start have one.
jax.config.update("jax_num_cpu_devices", 8)

# Compiled fast: whole runs and what allows for sums in another order. Elsewhere numbers are held
# closer than that.
FAST = (
    "tests/commands/",
    "tests/e2e/",
    "tests/faults/",
    "tests/invariance/",
    "tests/runs/",
    "tests/testing/",
    "tests/training/",
    "tests/configs/test_routers.py",
    "tests/dispatch/test_routed.py",
    "tests/dispatch/test_transports.py",
    "tests/evaluation/test_calibration.py",
    "tests/evaluation/test_causal_gap.py",
    "tests/evaluation/test_generate.py",
    "tests/evaluation/test_predictor_fit.py",
    "tests/evaluation/test_rank_classification.py",
    "tests/evaluation/test_task_run.py",
    "tests/evaluation/test_task_scores.py",
)


# The longest files, the longest first. A worker takes a whole file at a time.
LONGEST = (
    "faults/test_ends.py",
    "e2e/test_processes.py",
    "invariance/test_mesh_token_choice.py",
    "invariance/test_mesh_expert_choice.py",
    "training/test_step.py",
    "dispatch/test_routed.py",
    "faults/test_disk.py",
    "e2e/test_notebook.py",
    "e2e/test_guides.py",
    "testing/test_router_contract.py",
    "runs/test_python_api.py",
    "dispatch/test_transports.py",
    "tests/test_cli.py",
    "invariance/test_causality.py",
    "commands/test_data.py",
    "configs/test_routers.py",
    "e2e/test_resume.py",
    "commands/test_bench.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Before the fixtures of modules, too."""
    compiling.set_fast(item.nodeid.startswith(FAST))


def pytest_collection_modifyitems(items):
    """Puts the longest files first, so that no worker is left with one at the end."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get("/".join(item.path.parts[-2:]), len(ranks)))


# Of the 65,530 memory mappings that Linux allows a process by default (vm.max_map_count). XLA's CPU
# programs have several each, and crash in many ways when there are no more. Compiled programs are
# freed between files above the first number, and inside a file, whose tests share programs, above
# the second: test_generate.py alone has 1,000 more after each of 26 tests.
MAPPINGS, MAPPINGS_IN_FILE = 20_000, 40_000
# Counting takes 10 ms; inside a file it is done after every fourth test.
TESTS_BETWEEN_COUNTS = 4
_tests = itertools.count(1)


def pytest_runtest_teardown(item, nextitem):
    """Frees compiled programs if there are many; the cache on disk keeps them."""
    is_last = nextitem is None or nextitem.path != item.path
    if not is_last and next(_tests) % TESTS_BETWEEN_COUNTS:
        return
    if count_mappings() > (MAPPINGS if is_last else MAPPINGS_IN_FILE):
        jax.clear_caches()
        gc.collect()


def count_mappings():
    """Returns the number of this process's memory mappings; 0 where it is unknown."""
    try:
        with open("/proc/self/maps", "rb") as mappings:
            return sum(1 for _ in mappings)
    except OSError:
        return 0


@pytest.fixture(autouse=True)
def one_device(monkeypatch, request):
    """Commands that run in this process see one device, unless a test asks for `all_devices`."""
    if "all_devices" in request.fixturenames:
        return
    from moe_jax.sharding import mesh

    monkeypatch.setattr(mesh, "available_devices", lambda: jax.devices()[:1])


@pytest.fixture
def all_devices():
    """Lets commands in this process see all eight devices."""
