"""Losses are those of the evaluation; shares are counted again with numpy."""

import jax
import numpy as np
import pytest
import tiny

from moe_jax.evaluation.causal_gap import CausalVariant, measure_gaps
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.training.step import forward

BATCHES = [tiny.make_batch(4, 12, seed) for seed in range(2)]
# The last row of the second batch is padding.
for array in (BATCHES[1].inputs_BS, BATCHES[1].targets_BS, BATCHES[1].weights_BS):
    array[-1] = 0


@pytest.fixture(scope="module")
def measured():
    model, variables = tiny.make(ExpertChoice(1.0, Pool("sequence")))
    causal = model.causal()
    report = measure_gaps(model, variables, [CausalVariant(causal, variables)], BATCHES)
    return model, variables, report


def choices(model, variables):
    """Returns the choices for all real tokens, [L, T, E]."""

    @jax.jit
    def choose(variables, batch):
        context = RoutingContext(keeps_choices=True)
        return forward(model, variables, batch, context).routing.chosen_BSE

    made = [choose(variables, batch) for batch in BATCHES]
    parts = [np.asarray(c)[:, b.mask_BS] for c, b in zip(made, BATCHES, strict=True)]
    return np.concatenate(parts, axis=1)


def test_losses_are_those_of_the_evaluation(measured):
    model, variables, report = measured
    figures = Evaluator(model, BATCHES, np.ones(64, np.int32))(variables)
    assert report.tokens == figures.tokens == 7 * 12
    assert report.loss == pytest.approx(figures.loss, rel=1e-6)
    assert report.gaps[0].loss == pytest.approx(figures.causal_loss, rel=1e-6)
    assert report.mean_experts == pytest.approx(figures.mean_experts, rel=1e-6)
    assert report.gaps[0].mean_experts == pytest.approx(figures.causal_mean_experts, rel=1e-6)


def test_shares_are_counted_over_real_tokens(measured):
    model, variables, report = measured
    trained, causal = choices(model, variables), choices(model.causal(), variables)
    assert trained.shape == (2, 84, 4)
    for layer, gap in enumerate(report.gaps[0].layers):
        before, after = trained[layer], causal[layer]
        assert gap.flipped_share == pytest.approx(np.mean(before != after))
        assert 0 < gap.flipped_share < 1
        assert gap.kept_share == pytest.approx(after[before].mean())
        assert gap.mean_experts == pytest.approx(after.sum() / 84)
        assert gap.unrouted_share == pytest.approx(np.mean(after.sum(1) == 0))
        assert gap.max_load == pytest.approx(after.sum(0).max() / after.sum(0).mean())


def test_routing_as_in_training_flips_nothing(measured):
    model, variables, report = measured
    itself = measure_gaps(model, variables, [CausalVariant(model, variables)], BATCHES).gaps[0]
    assert itself.loss == report.loss
    assert [(gap.flipped_share, gap.kept_share) for gap in itself.layers] == [(0.0, 1.0)] * 2
