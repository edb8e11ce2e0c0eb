"""Law 2 for token choice and the fixed routers: a step is the same on every mesh."""

import dataclasses

import pytest
from mesh_step import Setting, check, label
from tiers import slow

from moe_jax.routers import get_router
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.forced_balanced import ForcedBalanced
from moe_jax.routers.hash import Hash
from moe_jax.routers.random_experts import RandomExperts
from moe_jax.routers.thor import Thor
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig

EXPERT_4 = MeshConfig(data=2, expert=4)
ALL = MeshConfig(data=1, fsdp=2, expert=2, tensor=2)
# Buffers that hold a quarter of the expected rows: several turns.
NARROW = MeshConfig(data=1, expert=4, buffer_factor=0.25)
DATA = MeshConfig(data=4)
IMPLICIT = MeshConfig(data=2, expert=2, expert_parallelism="implicit")


def router(name: str, rows: int = 2, **changes: object) -> TokenChoice:
    """Returns a preset with pools of a number of rows; 0 for the whole batch."""
    return dataclasses.replace(get_router(name), pool=Pool("batch", rows=rows), **changes)


# V-MoE's: a loss that is not a mean over tokens.
NOISY = router("topk", k=2, noise=1.0, capacity_factor=1.5, order="priority")


@pytest.mark.parametrize(
    ("which", "mesh"),
    [
        slow(router("switch"), EXPERT_4),
        slow(router("switch", rows=0), ALL),
        slow(router("gshard_top2"), ALL),
        slow(router("gshard_top2", rows=0), EXPERT_4),
        slow(router("glam_top2"), DATA),
        slow(router("topk"), EXPERT_4),
        (router("topk", rows=0), ALL),
        slow(router("topk"), NARROW),
        slow(router("topk", balance="bias"), DATA),
        slow(router("topk", balance="quantile"), ALL),
        slow(router("topk", balance_over="pool"), EXPERT_4),
        slow(NOISY, EXPERT_4),
        slow(Adaptive(pool=Pool("sequence")), ALL),
        slow(Adaptive(threshold=1.0, expected_experts=1.0), EXPERT_4),
        slow(Hash(), EXPERT_4),
        slow(RandomExperts(k=2), ALL),
        slow(ForcedBalanced(k=1), DATA),
        slow(Thor(), EXPERT_4),
        slow(Thor(drawn_per="token"), DATA),
    ],
    ids=label,
)
def test_step(which, mesh):
    check(which, mesh)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["switch", "gshard_top2"])
def test_implicit_expert_parallelism(name):
    check(router(name), IMPLICIT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("which", "setting"),
    [
        (router("switch"), Setting(accumulation=2, remat="full")),
        (router("topk"), Setting(accumulation=2)),
    ],
    ids=label,
)
def test_settings(which, setting):
    check(which, EXPERT_4, setting)
