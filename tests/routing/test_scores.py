"""Router logits are float32 and right, whatever the precision of the model; jitter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.routing.scores import router_logits

P, N, D, E = 2, 3, 256, 4


@pytest.mark.parametrize("x_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kernel_dtype", [jnp.float32, jnp.bfloat16])
def test_logits_equal_a_float64_product(x_dtype, kernel_dtype):
    """Inputs are rounded to their type; nothing after that may be."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(P, N, D)), x_dtype)
    kernel = jnp.asarray(rng.normal(size=(D, E)) / np.sqrt(D), kernel_dtype)
    logits = router_logits(x, kernel)
    assert logits.dtype == jnp.float32
    expected = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    np.testing.assert_allclose(logits, expected, atol=3e-6)


@pytest.mark.parametrize("jitter", [0.0, 0.1])
def test_matrix_product_asks_for_the_highest_precision(jitter):
    """On a TPU the default precision would round float32 inputs to bfloat16."""
    arguments = jnp.ones((P, N, D)), jnp.ones((D, E)), jax.random.key(0)
    jaxpr = jax.make_jaxpr(lambda x, kernel, key: router_logits(x, kernel, jitter, key))(*arguments)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert [eqn.params["precision"] for eqn in products] == [(highest, highest)]


@pytest.mark.parametrize("width", [5, 8])
@pytest.mark.parametrize("jitter", [0.01, 0.5])
def test_jitter_is_uniform_on_the_input(jitter, width):
    """Read off through the identity as router; five standard errors of the mean."""
    x = np.random.default_rng(0).uniform(1, 2, (4, 2000, width)).astype(np.float32)
    logits = router_logits(x, jnp.eye(width), jitter, jax.random.key(1))
    noise = (np.asarray(logits, np.float64) / x - 1) / jitter
    assert np.abs(noise).max() < 1 + 1e-4
    assert abs(noise.mean()) < 5 / np.sqrt(3 * noise.size)
    # The variance of the square of a uniform number in (-1, 1) is 1/5 - 1/9.
    assert abs((noise**2).mean() - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / noise.size) + 1e-4
    # Each of the numbers in a random word is a number of its own.
    correlation = np.corrcoef(noise.reshape(-1, width).T)
    assert np.abs(correlation - np.eye(width)).max() < 5 / np.sqrt(8000)


def test_jitter_changes_with_the_key_and_needs_one():
    x, kernel = np.random.default_rng(0).normal(size=(P, N, D)).astype("f"), jnp.ones((D, E))
    plain = router_logits(x, kernel)
    np.testing.assert_array_equal(router_logits(x, kernel, 0.1), plain)
    np.testing.assert_array_equal(router_logits(x, kernel, 0.0, jax.random.key(0)), plain)
    one, other = (router_logits(x, kernel, 0.1, jax.random.key(seed)) for seed in (0, 1))
    assert (one != plain).all()
    assert (one != other).all()
    np.testing.assert_array_equal(one, router_logits(x, kernel, 0.1, jax.random.key(0)))
