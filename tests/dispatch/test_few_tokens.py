"""Few tokens: the chosen experts one by one; beside the equation in numpy, and as a program.

It is not registered: training does not use it.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import mostly_slow

from moe_jax.dispatch.few_tokens import MOST_SINGLE_ROWS, MOST_TOKENS, few_tokens
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.oracle import oracle
from moe_jax.routing.assignment import Pairs

E, D, F = 6, 5, 3


def inputs(tokens, choices=3):
    rng = np.random.default_rng(tokens)
    x = rng.normal(size=(1, tokens, D)).astype(np.float32)
    wi, wo = (rng.normal(size=(E, D, F)).astype(np.float32) for _ in range(2))
    # Experts 1 and 4 are never chosen.
    index = rng.choice([0, 2, 3, 5], size=(tokens, 4))
    index = np.stack([rng.permutation([0, 2, 3, 5])[:choices] for _ in index])[None]
    pairs = Pairs(
        expert_index_PNK=jnp.asarray(index, jnp.int32),
        weight_PNK=jnp.asarray(rng.normal(size=index.shape), jnp.float32),
        chosen_PNK=jnp.asarray(rng.random(index.shape) < 0.7),
        num_experts=E,
    )
    return pairs, x, wi, wo


def by_hand(pairs, x, wi, wo):
    y = np.zeros_like(x, np.float64)
    chosen = np.argwhere(np.asarray(pairs.chosen_PNK))
    for p, n, k in chosen:
        e = int(pairs.expert_index_PNK[p, n, k])
        y[p, n] += float(pairs.weight_PNK[p, n, k]) * (np.tanh(x[p, n] @ wi[e]) @ wo[e].T)
    return y


def network(wi, wo, is_split):
    each = tuple((jnp.asarray(a), jnp.asarray(b.T)) for a, b in zip(wi, wo, strict=True))
    return ExpertNetwork(jnp.asarray(wi), jnp.asarray(wo), jnp.tanh, each if is_split else None)


@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("tokens", mostly_slow([8, 1, MOST_TOKENS + 1]))
def test_output_is_that_of_the_equation(tokens, is_split):
    pairs, x, wi, wo = inputs(tokens)
    run = jax.jit(few_tokens)
    found = run(pairs, jnp.asarray(x), network(wi, wo, is_split))
    np.testing.assert_allclose(found, by_hand(pairs, x, wi, wo), rtol=1e-5, atol=1e-5)


def test_both_ways_of_computing_an_expert_are_tested():
    pairs, *_ = inputs(8)
    experts = np.asarray(pairs.expert_index_PNK)[np.asarray(pairs.chosen_PNK)]
    counts = np.bincount(experts, minlength=E)
    assert counts.min() == 0
    assert 0 < sorted(counts)[2] <= MOST_SINGLE_ROWS < counts.max()


@pytest.mark.parametrize("is_split", [True, False])
def test_experts_that_no_token_has_chosen_are_not_computed(is_split):
    """Their weights are not numbers: a product with them, even by the weight 0, would show."""
    pairs, x, wi, wo = inputs(4)
    expected = by_hand(pairs, x, wi, wo)
    wi[[1, 4]] = wo[[1, 4]] = np.nan
    found = jax.jit(few_tokens)(pairs, jnp.asarray(x), network(wi, wo, is_split))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    none = Pairs(
        pairs.expert_index_PNK,
        pairs.weight_PNK,
        jnp.zeros_like(pairs.chosen_PNK),
        pairs.num_experts,
    )
    assert not np.any(few_tokens(none, jnp.asarray(x), network(wi, wo, is_split)))


@pytest.mark.slow
def test_gradients_of_the_loop_are_the_oracles():
    pairs, x, wi, wo = inputs(5)

    def run(dispatch, x, wi, wo, weight):
        assignment = dataclasses.replace(pairs, weight_PNK=weight)
        return dispatch(assignment, x, ExpertNetwork(wi, wo, jnp.tanh))

    arrays = (jnp.asarray(x), jnp.asarray(wi), jnp.asarray(wo), pairs.weight_PNK)
    found, expected = (
        jax.vjp(functools.partial(run, dispatch), *arrays)[1](jnp.cos(jnp.asarray(x)))
        for dispatch in (few_tokens, oracle)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
