"""Router z-loss: closed forms; padding does not count."""

import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.losses import masked_mean, router_z_loss


def z_loss(logits, mask):
    """The loss reads logits and mask only: probabilities are left at NaN."""
    logits = jnp.asarray(logits, jnp.float32)
    return router_z_loss(RouterScores(logits, jnp.full_like(logits, jnp.nan), jnp.asarray(mask)))


@pytest.mark.parametrize("experts", [1, 2, 8, 64])
@pytest.mark.parametrize("shift", [0.0, -3.0, 5.0])
def test_uniform_logits(experts, shift):
    """logsumexp of E equal logits a is a + ln E."""
    loss = z_loss(np.full((2, 5, experts), shift), np.ones((2, 5), bool))
    np.testing.assert_allclose(loss, (shift + np.log(experts)) ** 2, rtol=1e-5, atol=1e-6)


def test_is_the_mean_of_squares_over_real_tokens():
    """Tokens with logsumexp 1 and -3: (1 + 9) / 2 = 5, not (1 - 3)^2 / 4; padding is far off."""
    logits = np.array([[[1.0, -1e9], [-3.0, -1e9], [100.0, 100.0]]])
    np.testing.assert_allclose(z_loss(logits, [[True, True, False]]), 5.0, rtol=1e-6)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(z_loss([[[1e4, 0.0]]], [[True]]), 1e8, rtol=1e-6)


def test_masked_mean():
    value = jnp.asarray([[1.0, 2.0], [6.0, 50.0]])
    assert masked_mean(value, jnp.asarray([[True, True], [True, False]])) == 3.0
    assert masked_mean(value, jnp.zeros((2, 2), bool)) == 0.0
