"""The largest values of a row: against numpy's stable sort."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.routing.top_mask import top_mask

ROWS, VALUES = 3, 11
# With few kinds of values there are many ties; among them both zeros, the ends, and neighbours.
KINDS = [0.0, -0.0, 1.0, np.nextafter(np.float32(1), np.float32(2)), -1.0, 1e-40, -1e30, -np.inf]
FLOATS = st.one_of(st.sampled_from(KINDS), st.floats(width=32, allow_nan=False))
run = jax.jit(top_mask)


def expected(value_N, candidate_N, count):
    """Returns the mask for one row."""
    order = np.argsort(-value_N.astype(np.float64), kind="stable")
    mask = np.zeros(len(value_N), bool)
    mask[[n for n in order if candidate_N[n]][:count]] = True
    return mask


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_it_equals_a_stable_sort(data):
    size = ROWS * VALUES
    value = np.float32(data.draw(st.lists(FLOATS, min_size=size, max_size=size)))
    value = np.where(np.abs(value) < np.finfo(np.float32).tiny, 0, value).reshape(ROWS, VALUES)
    flags = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    candidate = np.reshape(flags, (ROWS, VALUES))
    count = np.array([data.draw(st.integers(0, VALUES)) for _ in range(ROWS)], np.int32)
    actual = run(value, candidate, count)
    rows = zip(value, candidate, count, strict=True)
    np.testing.assert_array_equal(actual, [expected(*row) for row in rows])


@pytest.mark.parametrize("count", [0, 1, 500, 1000])
def test_many_values(count):
    value = np.random.default_rng(0).normal(size=(1, 1000)).astype("f")
    mask = np.asarray(top_mask(value, np.ones((1, 1000), bool), np.array([count])))
    assert mask.sum() == count
    assert count == 0 or count == 1000 or value[mask].min() > value[~mask].max()
