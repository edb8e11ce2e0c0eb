"""Router scores are float32 and right, whatever the precision of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.routing.scores import router_scores

P, N, D, E = 2, 3, 256, 4


@pytest.mark.parametrize("x_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kernel_dtype", [jnp.float32, jnp.bfloat16])
def test_scores_equal_float64_softmax_over_experts(x_dtype, kernel_dtype):
    """Inputs are rounded to their type; nothing after that may be."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(P, N, D)), x_dtype)
    kernel = jnp.asarray(rng.normal(size=(D, E)) / np.sqrt(D), kernel_dtype)
    scores = router_scores(x, kernel, jnp.ones((P, N), bool))
    logits = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
    assert scores.logits_PNE.dtype == scores.probabilities_PNE.dtype == jnp.float32
    np.testing.assert_allclose(scores.logits_PNE, logits, atol=3e-6)
    np.testing.assert_allclose(scores.probabilities_PNE, oracles.softmax(logits), atol=2e-6)


def test_matrix_product_asks_for_the_highest_precision():
    """On a TPU the default precision would round float32 inputs to bfloat16."""
    arguments = jnp.ones((P, N, D)), jnp.ones((D, E)), jnp.ones((P, N), bool)
    jaxpr = jax.make_jaxpr(router_scores)(*arguments)
    products = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "dot_general"]
    highest = jax.lax.Precision.HIGHEST
    assert [eqn.params["precision"] for eqn in products] == [(highest, highest)]
