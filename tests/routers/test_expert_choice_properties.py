"""Properties that expert choice has for any scores and any padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.metrics import summarise

P, N, E = 2, 12, 4
FACTORS = [1.0, 1.25, 4.0]


@functools.partial(jax.jit, static_argnums=0)
def compiled(factor, logits_PNE, mask_PN):
    scores = RouterScores(logits_PNE, jax.nn.softmax(logits_PNE), mask_PN)
    output = ExpertChoice(factor)(scores, {})
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
EXAMPLES = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("factor", FACTORS)
@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_balance_single_use_and_padding(factor, logits, mask):
    """Every expert works on the same number of distinct real tokens of each pool."""
    output = route(factor, logits, mask)
    count, weight = oracles.assignment_table(output.assignment, N)
    assert count.max(initial=0) <= 1
    assert not count[~mask].any()
    per_expert_PE = count.sum(1)
    for per_expert_E, real in zip(per_expert_PE, mask.sum(1), strict=True):
        slots = max(oracles.capacity(int(real), factor, E), min(int(real), 1))
        assert per_expert_E.tolist() == [slots] * E
    if mask.any():
        np.testing.assert_allclose(output.metrics["max_violation"], 0.0, atol=1e-6)
        assert output.metrics["dropped_share"] == 0.0
    expected = np.where(count > 0, oracles.softmax(logits), 0.0)
    np.testing.assert_allclose(weight, expected, rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("factor", FACTORS)
@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_no_token_left_out_scores_higher_than_one_taken(factor, logits, mask):
    """Ties allow either, so this holds for them too."""
    count, _ = oracles.assignment_table(route(factor, logits, mask).assignment, N)
    probability = np.asarray(jax.nn.softmax(jnp.asarray(logits)))
    for p, e in np.ndindex(P, E):
        taken = probability[p, count[p, :, e] > 0, e]
        left = probability[p, (count[p, :, e] == 0) & mask[p], e]
        assert taken.min(initial=2.0) >= left.max(initial=0.0)


@given(seed=st.integers(0, 2**32 - 1), mask=MASKS)
@EXAMPLES
def test_permuting_a_pool_permutes_the_result(seed, mask):
    """The scores are distinct: ties are broken by position."""
    rng = np.random.default_rng(seed)
    # Distinct scores per expert: softmax of [a, -a] is strictly increasing in a.
    a_PN = np.array([rng.permutation(N) for _ in range(P)]) / N
    logits = np.stack([a_PN, -a_PN, a_PN - 1, 1 - a_PN], -1).astype(np.float32)
    order = np.array([rng.permutation(N) for _ in range(P)])
    rows = np.arange(P)[:, None]
    count, weight = oracles.assignment_table(route(1.25, logits, mask).assignment, N)
    moved = route(1.25, logits[rows, order], mask[rows, order]).assignment
    moved_count, moved_weight = oracles.assignment_table(moved, N)
    np.testing.assert_array_equal(moved_count, count[rows, order])
    np.testing.assert_allclose(moved_weight, weight[rows, order], rtol=1e-6)


@given(logits=logits(), mask=MASKS)
@EXAMPLES
def test_pools_do_not_see_each_other(logits, mask):
    """Swapping the pools swaps the result."""
    table = oracles.assignment_table(route(1.25, logits, mask).assignment, N)
    swapped = oracles.assignment_table(route(1.25, logits[::-1], mask[::-1]).assignment, N)
    for one, other in zip(table, swapped, strict=True):
        np.testing.assert_array_equal(one, other[::-1])
