"""Expert parallelism equals the oracle on every assignment, and moves only what it has to."""

import collections
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import mesh_step
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiers import mostly_slow

from moe_jax.dispatch.expert_parallel import Exchange, expert_parallel
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.oracle import oracle
from moe_jax.routers import get_router
from moe_jax.routing.assignment import Pairs, Slots
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig, make_mesh

DEVICES, POOLS, TOKENS, WIDTH, HIDDEN, EXPERTS, CHOICES = 4, 8, 6, 5, 3, 8, 3
ROWS = PartitionSpec("expert")


def network(wi: jax.Array, wo: jax.Array) -> ExpertNetwork:
    """Returns experts that do not map 0 to 0."""
    return ExpertNetwork(wi, wo, jnp.cos)


@functools.cache
def mesh() -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(data=1, expert=DEVICES), jax.devices()[:DEVICES])


@functools.partial(jax.jit, static_argnums=(4, 5))
def over_mesh(assignment, x_PND, wi, wo, buffer_factor, expected):
    """Returns y and the gradients of sum(y * c) with respect to weights and activations."""
    exchange = Exchange("expert", DEVICES, ("expert",), buffer_factor)

    def on_device(assignment, x_PND, wi, wo):
        return expert_parallel(assignment, x_PND, network(wi, wo), exchange, expected)

    spread = jax.shard_map(
        on_device,
        mesh=mesh(),
        in_specs=(ROWS, ROWS, ROWS, ROWS),
        out_specs=ROWS,
        check_vma=False,
    )
    return with_gradients(spread, assignment, x_PND, wi, wo)


@jax.jit
def at_once(assignment, x_PND, wi, wo):
    return with_gradients(
        lambda assignment, x, wi, wo: oracle(assignment, x, network(wi, wo)),
        *(assignment, x_PND, wi, wo),
    )


def with_gradients(dispatch, assignment, x_PND, wi, wo):
    name = "weight_PEC" if isinstance(assignment, Slots) else "weight_PNK"

    def objective(weight, x_PND, wi, wo):
        y_PND = dispatch(dataclasses.replace(assignment, **{name: weight}), x_PND, wi, wo)
        return jnp.sum(y_PND * jnp.cos(jnp.arange(y_PND.size).reshape(y_PND.shape))), y_PND

    differentiate = jax.grad(objective, argnums=(0, 1, 2, 3), has_aux=True)
    return differentiate(getattr(assignment, name), x_PND, wi, wo)


def arrays():
    random = np.random.default_rng(0)
    shapes = [(POOLS, TOKENS, WIDTH), *[(EXPERTS, WIDTH, HIDDEN)] * 2]
    return [random.normal(size=shape).astype(np.float32) for shape in shapes]


def pairs(which: str) -> Pairs:
    random = np.random.default_rng(1)
    shape = (POOLS, TOKENS, CHOICES)
    expert = np.argsort(random.random((POOLS, TOKENS, EXPERTS)))[..., :CHOICES]
    chosen = random.random(shape) < 0.7
    if which == "all to one device":
        expert, chosen = expert % 2 + 2, np.broadcast_to(np.arange(CHOICES) < 2, shape)
        expert = np.stack([expert[..., 0], 5 - expert[..., 0], expert[..., 0] * 0], axis=-1)
    elif which == "all to one expert":
        expert, chosen = np.full(shape, 7), np.broadcast_to(np.arange(CHOICES) < 1, shape)
    elif which == "nobody":
        chosen = np.zeros(shape, bool)
    elif which == "one device's tokens only":
        chosen = chosen & (np.arange(POOLS) >= POOLS - POOLS // DEVICES)[:, None, None]
    weight = np.where(chosen, random.random(shape) + 0.1, 0.0)
    return Pairs(
        jnp.asarray(expert, jnp.int32),
        jnp.asarray(weight, jnp.float32),
        jnp.asarray(chosen),
        EXPERTS,
    )


def slots() -> Slots:
    random = np.random.default_rng(2)
    shape = (POOLS, EXPERTS, 2)
    token = np.argsort(random.random((POOLS, EXPERTS, TOKENS)))[..., :2]
    filled = random.random(shape) < 0.7
    return Slots(
        jnp.asarray(np.where(filled, token, 0), jnp.int32),
        jnp.asarray(np.where(filled, random.random(shape) + 0.1, 0.0), jnp.float32),
        jnp.asarray(filled),
    )


def check(assignment, buffer_factor=1.5, expected=2.0):
    actual = over_mesh(assignment, *arrays(), buffer_factor, expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        jax.device_get(actual),
        jax.device_get(at_once(assignment, *arrays())),
    )


@pytest.mark.parametrize(
    "which",
    ["random", "all to one device", "all to one expert", "nobody", "one device's tokens only"],
)
def test_pairs(which):
    """With buffers of 16 rows for 36 pairs: up to three turns."""
    check(pairs(which))


@pytest.mark.slow
def test_buffers_of_one_turn_and_of_many():
    check(pairs("random"), buffer_factor=100.0)
    check(pairs("all to one expert"), expected=0.1)


def test_slots():
    check(slots())


def collectives(hlo: str) -> collections.Counter[tuple[str, str]]:
    """Counts a compiled program's collectives between more than one device, by kind and scope."""
    pattern = (
        r"= (\([^=]*\)|\S+) (all-to-all|all-gather|all-reduce|reduce-scatter|collective-permute|"
        r"ragged-all-to-all|collective-broadcast)(?:-start)?\((.*)"
    )
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for _, kind, rest in re.findall(pattern, hlo):
        if re.search(r"replica_groups=\{\{\d+\}", rest):
            continue
        name = re.search(r'op_name="([^"]*)"', rest)[1]
        where = "moe" if "/moe/" in name else "other"
        counts[kind, f"{where} {'backward' if 'transpose(' in name else 'forward'}"] += 1
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(["expert_choice", "switch", "gshard_top2"]))
def test_a_layer_has_the_collectives_that_theory_asks_for(name):
    """To the experts and back, forward and backward; weights and activations do not travel."""
    router = dataclasses.replace(get_router(name), pool=Pool("batch", rows=2))
    result = mesh_step.run(router, mesh_step.Setting(), MeshConfig(data=2, expert=4))
    counts = collectives(result.hlo)
    assert counts["all-to-all", "moe forward"] == 2
    assert counts["all-to-all", "moe backward"] == 2
    # What is left are sums: of gradients, losses and metrics.
    assert {kind for kind, _ in counts} == {"all-to-all", "all-reduce"}


@pytest.mark.slow
def test_a_layer_without_capacity_sends_its_counts_and_weights_as_well():
    router = dataclasses.replace(get_router("topk"), pool=Pool("batch", rows=2))
    result = mesh_step.run(router, mesh_step.Setting(), MeshConfig(data=2, expert=4))
    # Of the first turn; the further ones are in a loop that a balanced router never enters.
    layer = [line for line in result.hlo.splitlines() if "all-to-all(" in line]
    first = [line for line in layer if "shard_map/all_to_all" in line]
    assert sum("transpose" not in line for line in first) == 4
    assert sum("transpose" in line for line in first) == 3
