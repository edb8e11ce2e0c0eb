"""The laid-out weights give what the weights as they are give, one step at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoding import DecodingModel, DecodingWeights
from moe_jax.routers.token_choice import TokenChoice

SHAPE = {"num_layers": 2, "moe_every": 2, "scan_layers": False, "num_shared_experts": 1}


@pytest.fixture(scope="module")
def made():
    model, variables = tiny.make(TokenChoice(k=2), **SHAPE)
    return DecodingModel(model), variables


def test_laid_out_weights_change_nothing(made):
    decoding, variables = made
    weights = decoding.prepare(variables)
    assert weights.laid_out is not None
    caches = decoding.model.bind(variables).make_caches(2, 8)
    batch = BatchContext(*(jnp.array([[a], [b]]) for a, b in ((9, 5), (0, 0), (True, True))))

    @jax.jit
    def logits(weights):
        hidden, _ = decoding.step(weights, caches, batch)
        return decoding.logits(weights, hidden)

    expected = logits(DecodingWeights(variables))
    np.testing.assert_allclose(logits(weights), expected, rtol=1e-4, atol=1e-5)


def test_weights_are_laid_out_once_for_the_same_variables(made):
    decoding, variables = made
    weights = decoding.prepare(variables)
    assert decoding.prepare(variables) is weights
    other = jax.tree.map(lambda a: a * 2, variables)
    doubled = decoding.prepare(other)
    np.testing.assert_array_equal(
        doubled.laid_out.projection_DV, 2 * np.asarray(variables.params["embedding"]).T
    )


def test_scanned_layers_keep_their_layout():
    model, variables = tiny.make(None, num_experts=0)
    assert DecodingModel(model).prepare(variables).laid_out is None
