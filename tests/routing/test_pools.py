"""Pools: split equals explicit loops, join undoes it, and what does not fit is refused."""

import numpy as np
import oracles
import pytest

from moe_jax.errors import UserError
from moe_jax.routing.pools import Pool

POOLS = [
    Pool("sequence"),
    Pool("sequence", rows=2),  # Rows mean nothing to a sequence pool.
    Pool("position"),
    Pool("position", rows=3),
    Pool("position", rows=1),
    Pool("batch"),
    Pool("batch", rows=2),
    Pool("batch", rows=1),
]
BATCH, LENGTH = 6, 5


@pytest.mark.parametrize("pool", POOLS, ids=str)
@pytest.mark.parametrize("rest", [(), (4,)], ids=["mask", "activations"])
def test_split_equals_loops_and_join_undoes_it(pool, rest):
    x = np.arange(BATCH * LENGTH * int(np.prod(rest))).reshape(BATCH, LENGTH, *rest)
    expected = np.stack(
        [
            np.stack([x[b, s] for b, s in tokens])
            for tokens in oracles.pools(pool.kind, pool.rows, BATCH, LENGTH)
        ]
    )
    assert pool.shape(BATCH, LENGTH) == expected.shape[:2]
    np.testing.assert_array_equal(pool.split(x), expected)
    np.testing.assert_array_equal(pool.join(expected, BATCH, LENGTH), x)


@pytest.mark.parametrize(
    ("pool", "shape"),
    [
        (Pool("sequence"), (6, 5)),
        (Pool("position"), (5, 6)),
        (Pool("position", 2), (15, 2)),
        (Pool("batch"), (1, 30)),
        (Pool("batch", 3), (2, 15)),
    ],
    ids=str,
)
def test_shape_is_the_documented_table(pool, shape):
    assert pool.shape(BATCH, LENGTH) == shape


@pytest.mark.parametrize("kind", ["position", "batch"])
@pytest.mark.parametrize("rows", [4, 12])
def test_rows_that_do_not_divide_the_batch_are_refused(kind, rows):
    pool = Pool(kind, rows)
    with pytest.raises(UserError, match=f"{kind} pool of {rows} rows does not divide"):
        pool.shape(BATCH, LENGTH)
    with pytest.raises(UserError):
        pool.split(np.zeros((BATCH, LENGTH)))


def test_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'sequence'"):
        Pool("sequences")


def test_negative_rows_are_refused():
    with pytest.raises(UserError, match="-1"):
        Pool("batch", -1)
