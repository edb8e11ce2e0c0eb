"""Integers wrap to their element types."""

import pytest

from moe_jax.hlo.evaluator import wrap_integer
from moe_jax.hlo.shape import ArrayShape


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [(200, "s8", -56), (-1, "u32", 2**32 - 1), (2**31, "s32", -(2**31)), (5, "s32", 5)],
)
def test_numbers_wrap_as_on_the_device(value, dtype, expected):
    assert wrap_integer(value, ArrayShape(dtype, ())) == expected
