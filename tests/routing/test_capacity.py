"""k = floor(N c / E): the static rule, the rule for padded pools, and what is refused."""

import math
import re
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moe_jax.errors import UserError
from moe_jax.routing.capacity import expert_choice_capacity, filled_capacity

FACTORS = (0.5, 0.7, 1.0, 1.25, 1.5, 2.0, 3.0)
EXPERTS = st.integers(1, 256)


@pytest.mark.parametrize(
    ("tokens", "factor", "experts", "slots"),
    [
        (1024, 2.0, 64, 32),  # The paper's default.
        (1024, 1.0, 64, 16),
        (1024, 0.5, 64, 8),
        (90, 0.7, 3, 21),  # 90 * 0.7 is below 63 in float64.
        (45, 1.4, 63, 1),  # So is 45 * 1.4.
        (37, 3.0, 37, 3),  # 37 * (3 / 37) is below 3 in float32.
        (64, 1.25, 64, 1),
        (103, 1.25, 64, 2),  # 2.01.
        (102, 1.25, 64, 1),  # 1.99: down, not to nearest or up.
        (7, 4.0, 4, 7),  # c = E: every expert takes every token.
        (1, 1.0, 1, 1),
    ],
)
def test_rounds_down(tokens, factor, experts, slots):
    """In the dynamic rule too, which may not lean on the static one as its upper bound."""
    assert expert_choice_capacity(tokens, factor, experts) == slots
    assert filled_capacity(jnp.int32(tokens), factor, experts, slots + 9) == slots


@pytest.mark.parametrize(
    ("tokens", "factor", "experts"), [(31, 2.0, 64), (1, 1.25, 64), (9, 0.7, 7)]
)
def test_zero_slots_are_refused_with_the_smallest_pool_that_works(tokens, factor, experts):
    with pytest.raises(UserError, match="capacity is zero") as error:
        expert_choice_capacity(tokens, factor, experts)
    enough = int(re.search(r"at least (\d+) tokens", str(error.value))[1])
    assert expert_choice_capacity(enough, factor, experts) == 1
    assert oracles.capacity(enough - 1, factor, experts) == 0


@pytest.mark.parametrize(
    ("tokens", "factor", "experts"), [(8, 5.0, 4), (100, 1.5, 1), (20, 8.5, 8)]
)
def test_more_slots_than_tokens_are_refused(tokens, factor, experts):
    with pytest.raises(UserError, match="more than the"):
        expert_choice_capacity(tokens, factor, experts)


@given(tokens=st.integers(1, 2**20), factor=st.sampled_from(FACTORS), experts=EXPERTS)
@example(tokens=2**20, factor=1.0, experts=1)  # The dense model of law 8.
@example(tokens=2**20, factor=64.0, experts=64)
@example(tokens=2**20 - 1, factor=2.0, experts=64)
@example(tokens=202131, factor=1.25, experts=4)
@settings(max_examples=300, deadline=None, report_multiple_bugs=False)
def test_static_rule_up_to_a_million_tokens(tokens, factor, experts):
    """GLaM's batch is about a million tokens; a batch pool holds them all."""
    check_static(tokens, factor, experts)


def check_static(tokens, factor, experts):
    expected = oracles.capacity(tokens, factor, experts)
    if 1 <= expected <= tokens:
        assert expert_choice_capacity(tokens, factor, experts) == expected
    else:
        with pytest.raises(UserError):
            expert_choice_capacity(tokens, factor, experts)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("experts", [4, 7, 37, 64])
def test_dynamic_rule_for_every_number_of_real_tokens(factor, experts):
    """A pool with n real tokens fills k(n) slots, at least one if there is a real token."""
    tokens = 512
    capacity = oracles.capacity(tokens, factor, experts)
    filled = filled_capacity(jnp.arange(tokens + 1), factor, experts, capacity)
    expected = [max(oracles.capacity(n, factor, experts), min(n, 1)) for n in range(tokens + 1)]
    np.testing.assert_array_equal(filled, expected)
    assert filled.dtype == jnp.int32


@st.composite
def pools(draw, most):
    """Draws tokens, factor and experts; half of them where N * c / E has just become whole."""
    factor, experts = draw(st.sampled_from(FACTORS)), draw(EXPERTS)
    tokens = draw(st.integers(1, most))
    if draw(st.booleans()):
        step = Fraction(experts) / Fraction(str(factor))
        tokens = math.ceil(max(1, math.floor(tokens / step)) * step)
    return tokens, factor, experts


@given(pool=pools(2**20))
@example(pool=(1000003, 1.0, 4))
@example(pool=(202131, 1.25, 4))
@settings(max_examples=200, deadline=None, report_multiple_bugs=False)
def test_static_and_dynamic_rule_agree_up_to_a_million_tokens(pool):
    check_agreement(*pool)


def check_agreement(tokens, factor, experts):
    if 1 <= oracles.capacity(tokens, factor, experts) <= tokens:
        static = expert_choice_capacity(tokens, factor, experts)
        assert filled_capacity(jnp.int32(tokens), factor, experts, static) == static
