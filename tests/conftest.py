"""Settings that have to be made before JAX or TensorFlow start."""

import os

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# See scripts/test.sh: too few threads for virtual devices hang in jax 0.10.2.
os.environ.setdefault("NPROC", "16")

import compiling
import jax

# Virtual devices for the tests of meshes. Not by XLA_FLAGS: processes that tests start have one.
jax.config.update("jax_num_cpu_devices", 8)


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


@pytest.fixture
def compile_fast():
    """Compiles in half the time."""
    with compiling.fast():
        yield
