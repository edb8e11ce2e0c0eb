"""Activations that are computed once, against formulas in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.models.activations import gated_gelu, gelu

X = np.linspace(-5, 5, 101)
GATE, DY = np.roll(X, 30), np.cos(X)


def plain(x):
    """The approximation by tanh (Hendrycks and Gimpel 2016, section 2)."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def slope(x):
    """Of `plain`, by central differences."""
    step = 1e-5
    return (plain(x + step) - plain(x - step)) / (2 * step)


def test_gelu_and_its_gradient():
    y, pull = jax.vjp(gelu, jnp.asarray(X, jnp.float32))
    np.testing.assert_allclose(y, plain(X), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(pull(jnp.asarray(DY, jnp.float32))[0], DY * slope(X), atol=5e-6)


def test_gated_gelu_and_its_gradients():
    y, pull = jax.vjp(gated_gelu, *(jnp.asarray(a, jnp.float32) for a in (GATE, X)))
    np.testing.assert_allclose(y, plain(GATE) * X, rtol=1e-5, atol=1e-6)
    d_gate, dx = pull(jnp.asarray(DY, jnp.float32))
    np.testing.assert_allclose(d_gate, DY * X * slope(GATE), atol=1e-5)
    np.testing.assert_allclose(dx, DY * plain(GATE), atol=5e-6)


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.checkpoint])
def test_under_transformations(transform):
    x = jnp.asarray(X.reshape(-1, 1), jnp.float32)
    found = jax.grad(lambda x: transform(gelu)(x).sum())(x)
    np.testing.assert_allclose(found, slope(X)[:, None], atol=5e-6)


def test_nothing_is_fused_across_it():
    """Values and gradients are each behind a barrier."""
    text = str(jax.make_jaxpr(lambda x: jax.vjp(gelu, x)[1](x))(jnp.ones(3)))
    assert text.count("optimization_barrier") == 2
