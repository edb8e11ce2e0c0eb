"""Frozen parameters keep their values and have no part in the update; the others are trained."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.hash import Hash
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import SINGLE_DEVICE, make_partition
from moe_jax.training.frozen import frozen_names
from moe_jax.training.loss_spike_guard import GuardConfig
from moe_jax.training.optimizers import Optimizer, adafactor, adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, StepOptions, make_train_step
from moe_jax.training.update import make_update

ROUTER = "groups/layers/0/ffn/router_kernel"
EXPERTS = {"groups/layers/0/ffn/experts/wi", "groups/layers/0/ffn/experts/wo"}
NAMES = [
    "embedding",
    "final_norm/scale",
    "groups/layers/0/attention/query",
    ROUTER,
    *sorted(EXPERTS),
    "groups/layers/1/ffn/wi",
]
SHAPE = {"num_layers": 2, "moe_every": 1, "position": "rotary", "d_model": 8, "d_ff": 8}
SHAPE |= {"num_heads": 2, "head_dim": 4}


def rate(step):
    return jnp.float32(1e-2)


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ((), set()),
        (("router_kernel",), {ROUTER}),
        (("router*",), {ROUTER}),
        (("experts",), EXPERTS),
        (("ffn/experts/w?",), EXPERTS),
        (("wi",), {"groups/layers/0/ffn/experts/wi", "groups/layers/1/ffn/wi"}),
        (("layers/1",), {"groups/layers/1/ffn/wi"}),
        ((ROUTER, "embedding"), {ROUTER, "embedding"}),
        (("*", "!experts"), set(NAMES) - EXPERTS),
        (("*", "!router_kernel"), set(NAMES) - {ROUTER}),
        (("all_but_experts",), set(NAMES) - EXPERTS),
        (("router",), {ROUTER}),
        (("all_but_router",), set(NAMES) - {ROUTER}),
        (("*", "!router", "embedding"), set(NAMES) - {ROUTER}),
        (("all_but_experts", "!embedding"), set(NAMES) - EXPERTS - {"embedding"}),
        (("*", "!ffn", "experts"), set(NAMES) - {ROUTER, "groups/layers/1/ffn/wi"}),
    ],
)
def test_patterns_match_components_of_names(patterns, frozen):
    assert frozen_names(patterns, NAMES) == frozen


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (("rooter",), r"has 'rooter', which matches .* Did you mean 'router'\?"),
        (("all_but_expert",), r"Did you mean 'all_but_experts'\?"),
        (("*", "!all_but_experts"), r"has '!all_but_experts': after '!' .* such as 'experts'"),
        (("experts", "!expert"), r"has '!expert', .* Did you mean 'experts'\?"),
        (("attention/qurey",), r"Did you mean 'attention/query'\?"),
        (("kernel",), r"Names consist of: attention, embedding, experts, ffn, final_norm, groups,"),
        (("*",), r"leaves no parameter to train: .* such as '!router_kernel'"),
    ],
)
def test_patterns_without_effect_are_refused(patterns, message):
    with pytest.raises(UserError, match=message) as error:
        frozen_names(patterns, NAMES)
    assert "\n" not in str(error.value)


def with_adamw(frozen=()):
    return Optimizer(adamw(rate, weight_decay=0.5).transform, rate, elementwise=True, frozen=frozen)


def with_adafactor(frozen=()):
    return Optimizer(adafactor(rate).transform, rate, frozen=frozen)


def descent(frozen=()):
    return Optimizer(optax.sgd(1e-2), rate, frozen=frozen)


def trained(optimizer, mesh=None, accumulation=1, steps=2, **shape):
    """Returns the states before and after some steps, and the last gradient norm, on the host."""
    partition = SINGLE_DEVICE if mesh is None else make_partition(mesh, jax.devices()[:4])
    model = LanguageModel(tiny.config(**SHAPE | shape), ExpertChoice(2.0), partition)
    state = make_state(model, optimizer, seed=0)
    before = jax.device_get(state)
    step = make_train_step(model, optimizer, LossConfig(), StepOptions(accumulation))
    for seed in range(steps):
        state, metrics = step(state, tiny.make_batch(4, 16, seed))
    assert int(metrics["skipped_total"]) == 0
    return before, jax.device_get(state), float(metrics["gradient_norm"])


CASES = {
    "adamw, two micro-batches": (with_adamw, {"accumulation": 2}),
    "adafactor, unrolled": (with_adafactor, {"scan_layers": False}),
    "adamw, sharded": (with_adamw, {"mesh": MeshConfig(fsdp=2, expert=2)}),
}


@pytest.mark.parametrize("case", mostly_slow(CASES))
def test_frozen_parameters_are_those_of_the_start(case):
    """To the last bit, without optimiser state; all others and the thresholds change."""
    make, settings = CASES[case]
    before, after, _ = trained(make(("router_kernel", "embedding")), **settings)
    for name, value in after.variables.params.items():
        same = np.array_equal(value, before.variables.params[name])
        assert same == (name in {ROUTER, "embedding"}), name
    for name, value in after.variables.router_state.items():
        assert (value != before.variables.router_state[name]).all()
    paths = [str(path) for path, _ in jax.tree_util.tree_leaves_with_path(after.optimizer_state)]
    assert any("attention/query" in path for path in paths)
    assert not any("router_kernel" in path or "embedding" in path for path in paths)


def test_only_trained_parameters_count_in_the_norm():
    model = LanguageModel(tiny.config(**SHAPE), ExpertChoice(2.0))
    optimizer = descent(("*", "!experts"))
    state = make_state(model, optimizer, seed=0)
    gradients = {name: jnp.full(state.variables.params[name].shape, 0.5) for name in EXPERTS}
    update = jax.jit(make_update(model, optimizer, GuardConfig()))
    new, _, norm = update(state, gradients, state.variables.router_state, jnp.float32(1.0))
    # Two layers of two matrices of 4 experts, 8 x 8 each.
    np.testing.assert_allclose(norm, 0.5 * np.sqrt(2 * 2 * 4 * 64), rtol=1e-6)
    assert new.variables.params.keys() == state.variables.params.keys()
    for name, value in state.variables.params.items():
        change = 0.5e-2 if name in EXPERTS else 0.0
        np.testing.assert_allclose(new.variables.params[name], value - change, atol=1e-8)


@pytest.mark.slow
def test_gradients_of_the_others_are_the_same():
    """Updates of gradient descent are the gradients, up to a factor."""
    alone, whole = (trained(descent(f), steps=1) for f in (("*", "!router_kernel"), ()))
    moved = [
        after.variables.params[ROUTER] - alone[0].variables.params[ROUTER]
        for _, after, _ in (alone, whole)
    ]
    np.testing.assert_allclose(*moved, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(alone[2], np.linalg.norm(moved[1]) / 1e-2, rtol=1e-3)
    assert whole[2] > 2 * alone[2]


def test_a_router_without_parameters_cannot_be_frozen():
    model = LanguageModel(tiny.config(**SHAPE), Hash())
    with pytest.raises(UserError, match="'router_kernel', which matches the name of no parameter"):
        make_state(model, with_adamw(("router_kernel",)), seed=0)
