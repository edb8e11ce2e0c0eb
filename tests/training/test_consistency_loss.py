"""THOR's consistency loss against scipy, and its gradient against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from moe_jax.training.consistency_loss import consistency_loss

TOKENS, WIDTH, VOCABULARY = 7, 4, 11


def inputs(dtype=np.float32):
    """Returns activations of both passes, the embedding and weights, one of them 0."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(2, TOKENS, WIDTH)).astype(dtype)
    embedding = rng.normal(size=(VOCABULARY, WIDTH)).astype(dtype)
    weights = rng.random(TOKENS).astype(dtype)
    weights[2] = 0
    return (*hidden, embedding, weights)


def by_definition(hidden_1, hidden_2, embedding, weights):
    """Returns sum_t w_t (KL(p1 || p2) + KL(p2 || p1)) / 2 in float64 (Zuo et al. 2021, eq. 4)."""
    p, q = (
        scipy.special.softmax(h.astype(np.float64) @ embedding.astype(np.float64).T, axis=-1)
        for h in (hidden_1, hidden_2)
    )
    forward, backward = (scipy.special.rel_entr(*pair).sum(-1) for pair in ((p, q), (q, p)))
    return float((weights * (forward + backward)).sum() / 2)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_loss_is_the_symmetric_divergence_whatever_the_chunk(chunk):
    arrays = inputs()
    expected = by_definition(*arrays)
    assert expected > 1
    np.testing.assert_allclose(consistency_loss(*arrays, chunk), expected, rtol=1e-5)


def test_equal_passes_agree_and_the_order_does_not_matter():
    one, other, embedding, weights = inputs()
    assert consistency_loss(one, one, embedding, weights) == 0
    np.testing.assert_allclose(
        consistency_loss(one, other, embedding, weights),
        consistency_loss(other, one, embedding, weights),
        rtol=1e-6,
    )


@pytest.mark.parametrize("chunk", [3, 100])
def test_gradients_are_differences_of_the_definition(chunk):
    """With respect to both passes and to the embedding, entry by entry in float64."""
    gradients = jax.grad(consistency_loss, argnums=(0, 1, 2))(*map(jnp.asarray, inputs()), chunk)
    exact = inputs()
    for index, gradient in enumerate(gradients):
        expected = np.zeros(gradient.shape)
        for entry in np.ndindex(*gradient.shape):
            values = []
            for shift in (1e-5, -1e-5):
                moved = [a.astype(np.float64) for a in exact]
                moved[index][entry] += shift
                values.append(by_definition(*moved))
            expected[entry] = (values[0] - values[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)
        if index < 2:
            assert not np.asarray(gradient)[2].any()


def test_extreme_logits_stay_finite():
    """A probability of 0 in float32 is an exact zero of p log p, not a NaN."""
    one, other, embedding, weights = inputs()
    one = 40 * one
    assert (jax.nn.softmax(one @ embedding.T) == 0).any()
    value, gradient = jax.value_and_grad(consistency_loss)(one, other, embedding, weights)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(value, by_definition(one, other, embedding, weights), rtol=1e-4)
