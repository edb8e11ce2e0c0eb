"""The memory estimate, against arrays of known sizes and fake limits."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import pytest

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.training.memory import memory_estimate
from moe_jax.training.memory.memory_estimate import (
    MemoryCheckedStep,
    MemoryLimit,
    check_state,
    check_step,
    find_limit,
    state_bytes,
    step_bytes,
)
from moe_jax.training.state import abstract_state

GIB = 1 << 30
FILES = ["runs/pretrain.gin", "models/tiny_8e.gin", "routers/expert_choice.gin"]
GPU = MemoryLimit(10 * GIB, 1, True, "a GPU")
HOST = MemoryLimit(10 * GIB, 2, False, "this machine")


@pytest.fixture(scope="module")
def state():
    """Returns the shapes of a state of AdamW."""
    described = experiments.load(ConfigSource([*FILES, "optim/adamw.gin"], ["Model.num_layers=2"]))
    return abstract_state(described.language_model(), described.optimizer)


def test_a_state_counts_every_byte(state):
    parts = state_bytes(state)
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.variables.params))
    assert parts["parameters"] == parameters
    # Two moments, and the counts of steps.
    assert parts["optimiser"] == pytest.approx(2 * parameters, rel=1e-4)


def limit_of(state, share):
    """Returns a limit that is a share of parameters, gradients and optimiser state."""
    parts = state_bytes(state)
    whole = sum(parts.values()) + parts["parameters"]
    return dataclasses.replace(GPU, bytes=share * whole)


def test_what_surely_does_not_fit_is_refused_with_the_numbers(state):
    check_state(state, limit_of(state, 1.001))
    with pytest.raises(UserError) as caught:
        check_state(state, limit_of(state, 0.999))
    text = str(caught.value)
    assert "\n" not in text
    for word in ("GiB parameters", "GiB optimiser", "GiB gradients", "a GPU has", "Mesh.fsdp"):
        assert word in text
    assert "Train.check_memory = False" in text
    shared = dataclasses.replace(limit_of(state, 0.5), devices=4, is_exact=False)
    with pytest.raises(UserError, match=r"for each of 4 devices, and a GPU has .* for 4 devices"):
        check_state(state, shared)


def test_a_step_that_does_not_fit_is_refused_where_that_is_certain(state):
    said = []
    for limit in (GPU, HOST):
        check_step(10 * GIB, state, limit, said.append)
    assert said == []
    with pytest.raises(UserError, match=r"activations, gradients and the rest = 11.00 GiB, and a"):
        check_step(11 * GIB, state, GPU, said.append)
    # More of a host's memory is given than there is, as long as it is not used.
    check_step(11 * GIB, state, HOST, said.append)
    (text,) = said
    assert "= 11.00 GiB for each of 2 devices, and this machine has 20.00 GiB left" in text
    assert "Model.remat" in text


def test_a_compiled_step_says_what_it_takes():
    size = 1 << 20
    x = jax.ShapeDtypeStruct((size // 4,), jnp.float32)
    program = jax.jit(lambda a, b: (a + b, b * 2), donate_argnums=0).lower(x, x).compile()
    total = step_bytes(program)
    # Two arguments and a result; the other result takes the place of the first.
    assert 3 * size <= total <= 3.1 * size
    silent = types.SimpleNamespace(memory_analysis=lambda: None)
    assert step_bytes(silent) is None


@dataclasses.dataclass
class Step:
    """A fake step that counts its compilations and runs, and needs some bytes."""

    size: int
    compiled: int = 0
    ran: int = 0

    def lower(self, state, batch):
        self.compiled += 1
        names = ("argument", "output", "alias", "temp")
        stats = types.SimpleNamespace(**{f"{name}_size_in_bytes": 0 for name in names})
        stats.temp_size_in_bytes = self.size
        program = types.SimpleNamespace(memory_analysis=lambda: stats)
        return types.SimpleNamespace(compile=lambda: program)

    def __call__(self, state, batch):
        self.ran += 1
        return state, {}


def test_a_step_is_checked_once_before_it_runs(state):
    small, large = Step(9 * GIB), Step(11 * GIB)
    checked = MemoryCheckedStep(small, GPU, pytest.fail)
    for _ in range(3):
        assert checked(state, None) == (state, {})
    assert (small.compiled, small.ran) == (1, 3)
    with pytest.raises(UserError, match="a step takes"):
        MemoryCheckedStep(large, GPU, pytest.fail)(state, None)
    assert large.ran == 0


def test_checking_compiles_nothing_twice():
    compiled = []

    def step(state, batch):
        compiled.append(1)  # Runs while it is traced.
        return state + batch, {}

    checked = MemoryCheckedStep(jax.jit(step, donate_argnums=0), GPU, pytest.fail)
    state, batch = jnp.zeros((4, 4)), jnp.ones((4, 4))
    events = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))
    # Of a real state only the bytes are asked for, and only of what does not fit.
    state, _ = checked(state, batch)
    state, _ = checked(state, batch)
    assert len(compiled) == 1
    assert sum("backend_compile" in name for name in events) == 1
    assert float(state[0, 0]) == 2


def device(platform, stats=None):
    return types.SimpleNamespace(
        platform=platform, device_kind="GPU", memory_stats=lambda: stats or {}
    )


def test_the_limit_of_devices(monkeypatch):
    found = find_limit([device("gpu", {"bytes_limit": 7}), device("gpu", {"bytes_limit": 5})])
    assert (found.bytes, found.is_exact, str(found)) == (5, True, "a GPU has 0.00 GiB")
    assert find_limit([device("gpu")]) is None
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: 8 * GIB)
    found = find_limit([device("cpu")] * 4)
    assert (found.bytes, found.is_exact) == (2 * GIB, False)
    assert str(found) == "this machine has 8.00 GiB left for 4 devices"
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda: None)
    assert find_limit([device("cpu")]) is None
