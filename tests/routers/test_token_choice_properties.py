"""Properties that token choice has for any scores and any padding."""

import dataclasses
import functools

import jax
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.metrics import summarise
from moe_jax.routing.position_in_expert import ORDERS

P, N, E = 2, 12, 4
EXAMPLES = settings(max_examples=30, deadline=None)
LIMITED = [TokenChoice(k=2, capacity_factor=0.7, order=order) for order in ORDERS]
LIMITED.append(TokenChoice(k=3, scale=2.5, capacity_factor=0.5))
DROPLESS = [TokenChoice(k=2), TokenChoice(k=3, score="sigmoid", scale=2.5)]


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def compiled(router, logits_PNE, mask_PN):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN)
    output = router(scores, {})
    return dataclasses.replace(output, metrics=summarise(output.metrics))


def route(*arguments):
    return jax.device_get(compiled(*arguments))


@st.composite
def logits(draw):
    """Gaussian logits, sharp or flat, some rounded so that there are many ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=(P, N, E)) * draw(st.sampled_from([0.01, 1.0, 30.0]))
    return (np.round(values) if draw(st.booleans()) else values).astype(np.float32)


MASKS = st.lists(st.booleans(), min_size=P * N, max_size=P * N).map(
    lambda flags: np.array(flags).reshape(P, N)
)


@pytest.mark.parametrize("router", LIMITED, ids=str)
@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_capacity_slots_and_padding(router, logits, mask):
    """No expert over capacity, no slot used twice, nothing wasted, padding never routed."""
    output = route(router, logits, mask)
    pairs = output.assignment
    chosen = np.asarray(pairs.chosen_PNK)
    count, weight = oracles.assignment_table(pairs, N)
    assert count.max(initial=0) <= 1
    assert not count[~mask].any()
    assert not weight[count == 0].any()
    expert, slot = np.asarray(pairs.expert_index_PNK), np.asarray(pairs.slot_PNK)
    for p in range(P):
        real = int(mask[p].sum())
        known = N if router.order == "left_to_right" else real
        most = max(oracles.capacity(known * router.k, router.capacity_factor, E), min(real, 1))
        for e in range(E):
            is_e = expert[p] == e
            wanted = (is_e & mask[p, :, None]).sum()
            # First come, first served: the slots from 0 on, each once, as many as wanted.
            used = sorted(slot[p][is_e & chosen[p]].tolist())
            assert used == list(range(min(wanted, most)))
            assert most <= pairs.capacity
    wanted = router.k * mask.sum()
    expected = 1 - chosen.sum() / max(wanted, 1) if wanted else 0.0
    np.testing.assert_allclose(output.metrics["dropped_share"], expected, atol=1e-6)
    whole = chosen.all(-1)
    np.testing.assert_allclose(weight.sum(-1)[whole], router.scale, rtol=1e-5)


@pytest.mark.parametrize("router", [*DROPLESS, LIMITED[1].causal(), LIMITED[3].causal()], ids=str)
@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_without_capacity_nothing_is_dropped(router, logits, mask):
    """Every real token has its k experts, none scores below one left out, weights add up."""
    output = route(router, logits, mask)
    count, weight = oracles.assignment_table(output.assignment, N)
    np.testing.assert_array_equal(count.sum(-1), router.k * mask)
    assert count.max(initial=0) <= 1
    assert output.metrics["dropped_share"] == 0
    np.testing.assert_allclose(weight.sum(-1), router.scale * mask, rtol=1e-5)
    lowest = np.where(count > 0, logits, np.inf).min(-1)
    left = np.where(count > 0, -np.inf, logits).max(-1)
    # Scores are rounded: logits that are nearly the same may tie, and any that are extreme.
    if np.abs(logits).max() < 5:
        assert (lowest >= left - 1e-4)[mask].all()


@pytest.mark.parametrize("router", [*DROPLESS, LIMITED[2]], ids=str)
@given(seed=st.integers(0, 2**32 - 1), mask=MASKS)
@EXAMPLES
def test_permuting_a_pool_permutes_the_result(router, seed, mask):
    """Without a capacity, or by priority where scores are distinct."""
    rng, rows = np.random.default_rng(seed), np.arange(P)[:, None]
    logits = rng.normal(size=(P, N, E)).astype(np.float32)
    largest = np.asarray(jax.nn.softmax(logits)).max(-1)
    assert all(len(set(largest_N)) == N for largest_N in largest)
    order = np.array([rng.permutation(N) for _ in range(P)])
    table = oracles.assignment_table(route(router, logits, mask).assignment, N)
    moved = route(router, logits[rows, order], mask[rows, order]).assignment
    for one, other in zip(table, oracles.assignment_table(moved, N), strict=True):
        np.testing.assert_array_equal(other, one[rows, order])


@pytest.mark.parametrize("router", [DROPLESS[1], *LIMITED[1:3]], ids=str)
@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_appended_padding_changes_nothing(router, logits, mask):
    """Whatever its scores are: choices, slots, losses, metrics and statistics are the same."""
    plain = route(router, logits, mask)
    longer = np.concatenate([logits, 50 * logits[:, ::-1]], axis=1)
    padded = route(router, longer, np.concatenate([mask, np.zeros_like(mask)], axis=1))
    assert not np.asarray(padded.assignment.chosen_PNK)[:, N:].any()
    for field in ("expert_index_PNK", "weight_PNK", "chosen_PNK", "slot_PNK"):
        one, other = getattr(plain.assignment, field), getattr(padded.assignment, field)
        if one is None:
            assert other is None
        else:
            real = mask if field != "slot_PNK" else np.asarray(plain.assignment.chosen_PNK)
            np.testing.assert_array_equal(np.asarray(one)[real], np.asarray(other)[:, :N][real])
    for name in ("losses", "metrics", "statistics"):
        for one, other in zip(
            jax.tree.leaves(getattr(plain, name)),
            jax.tree.leaves(getattr(padded, name)),
            strict=True,
        ):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("router", LIMITED, ids=str)
def test_causal_is_the_same_router_without_a_capacity(router):
    causal = router.causal()
    assert causal.capacity_factor is None
    assert causal.is_causal
    assert causal.causal() is causal
    assert (causal.k, causal.scale, causal.score) == (router.k, router.scale, router.score)
