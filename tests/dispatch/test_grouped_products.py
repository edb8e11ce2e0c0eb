"""Grouped products, beside their definition row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.dispatch import grouped_products

# Rows of each expert, of 20: some of nobody, none at all, all of one.
COUNTS = [[3, 0, 9, 4], [0, 0, 0, 0], [16, 0, 0, 4]]


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("count", COUNTS, ids=str)
@pytest.mark.parametrize("contract", [1, 2])
def test_rows_are_multiplied_by_the_weights_of_their_experts(count, contract):
    """The kernel is interpreted; its tiles do not divide the number of rows."""
    x, weight = arrays((20, 8), (4, 8, 16))
    expected = [x[row] @ weight[e] for row, e in enumerate(np.repeat(np.arange(4), count))]
    if contract == 2:
        weight = np.swapaxes(weight, 1, 2)
    counts = jnp.asarray(count, jnp.int32)
    for found in (
        grouped_products.rows_by_kernel(x, weight, counts, contract, interpret=True),
        grouped_products.ragged_rows(x, weight, counts, contract),
        grouped_products.multiply_rows(x, weight, counts, contract),
    ):
        assert found.shape == (20, 16)
        assigned = np.asarray(found)[: len(expected)]
        np.testing.assert_allclose(assigned, np.reshape(expected, (-1, 16)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", COUNTS, ids=str)
def test_gradients_of_weights_are_sums_over_the_rows_of_an_expert(count):
    a, b = arrays((20, 8), (20, 16))
    expected = np.zeros((4, 8, 16))
    for row, e in enumerate(np.repeat(np.arange(4), count)):
        expected[e] += np.outer(a[row], b[row])
    counts = jnp.asarray(count, jnp.int32)
    for found in (
        grouped_products.gradient_by_kernel(a, b, counts, interpret=True),
        grouped_products.ragged_gradient(a, b, counts),
        grouped_products.weight_gradient(a, b, counts),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_tiles_of_several_sizes_that_do_not_divide():
    """Interpreted: columns in two tiles each, the last of them padded, rows in tiles of 256."""
    x, weight = arrays((2100, 1408), (2, 1408, 1152))
    counts = jnp.asarray([1500, 590], jnp.int32)
    assert grouped_products._tile(1408, 1024) == 768  # 1,536 in all; 1,024 would make 2,048.
    assert grouped_products._tile(4096, 1024) == 1024
    assert grouped_products._row_tile(2100, 2) == 256
    found = grouped_products.rows_by_kernel(x, weight, counts, interpret=True)
    expected = np.concatenate([x[:1500] @ weight[0], x[1500:2090] @ weight[1]])
    np.testing.assert_allclose(np.asarray(found)[:2090], expected, rtol=1e-4, atol=1e-3)


def test_few_rows_of_many_experts_have_small_tiles():
    assert grouped_products._row_tile(4096, 64) == 128
    assert grouped_products._row_tile(5120, 1) == 512


def test_on_tpu_both_are_kernels():
    arguments = (
        jax.ShapeDtypeStruct((1024, 256), jnp.bfloat16),
        jax.ShapeDtypeStruct((4, 256, 512), jnp.bfloat16),
        jax.ShapeDtypeStruct((4,), jnp.int32),
    )
    lowered = jax.jit(grouped_products.multiply_rows).trace(*arguments)
    text = lowered.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.custom_call @tpu_custom_call") == 1
    assert "ragged_dot" not in text
