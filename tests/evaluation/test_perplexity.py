"""Held-out metrics against closed forms."""

import math

import jax
import numpy as np
import pytest
import tiny

from moe_jax.data.batch import Batch
from moe_jax.evaluation.perplexity import Evaluator, Perplexity
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.functional import Variables
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool


def test_figures_of_a_known_loss():
    figures = Perplexity(
        loss=math.log(8), causal_loss=math.log(16), tokens=100, bytes=400
    ).as_dict()
    assert figures["perplexity"] == pytest.approx(8)
    assert figures["bits_per_byte"] == pytest.approx(3 * 100 / 400)
    assert figures["causal_perplexity"] == pytest.approx(16)
    assert figures["causal_bits_per_byte"] == pytest.approx(1.0)


@pytest.mark.slow
def test_a_model_that_knows_nothing_has_the_loss_of_the_uniform_distribution():
    """With a zero embedding all logits are 0: ln V a token, whatever the routing."""
    model, variables = tiny.make(ExpertChoice(2.0))
    params = {**variables.params, "embedding": 0 * variables.params["embedding"]}
    batch = tiny.make_batch(4, 8)
    weights = np.ones((4, 8), np.float32)
    weights[1:, 5:] = 0
    batch = Batch(batch.inputs_BS, batch.targets_BS, weights)
    bytes_of_token = np.arange(64)
    result = Evaluator(model, [batch, batch], bytes_of_token)(
        Variables(params, variables.router_state)
    )
    assert result.tokens == 2 * weights.sum()
    assert result.bytes == 2 * (batch.targets_BS * weights).sum()
    assert result.loss == pytest.approx(math.log(64), rel=1e-6)
    assert result.causal_loss == pytest.approx(math.log(64), rel=1e-6)
    assert result.mean_experts == pytest.approx(2.0)


@pytest.mark.slow
def test_thresholds_at_the_kth_score_route_as_in_training():
    """Where the thresholds are the batch's own k-th scores, both losses are the same."""
    router = ExpertChoice(2.0, Pool("batch"))
    model, variables = tiny.make(router, num_layers=2)
    batch = tiny.make_batch(4, 8)

    def kth_scores(variables):
        statistics = model.bind(variables)(
            BatchContext.of_tokens(batch.inputs_BS)
        ).routing.statistics
        return statistics["kth_score_sum"] / statistics["pools"][:, None]

    (path,) = variables.router_state
    exact = Variables(variables.params, {path: jax.jit(kth_scores)(variables)})
    ones = np.ones(64, np.int32)
    result = Evaluator(model, [batch], ones)(exact)
    assert result.causal_mean_experts == pytest.approx(result.mean_experts)
    assert result.causal_loss == pytest.approx(result.loss, rel=1e-5)
    # And with others they are not.
    other = Evaluator(model, [batch], ones)(variables)
    assert abs(other.causal_loss - other.loss) > 1e-4
