"""Fitted predictors are logistic regressions: no step of the gradient improves them."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from scipy.optimize import minimize

from moe_jax.evaluation.predictor_fit import features_of, fit_predictors, read_predictors
from moe_jax.models.functional import LanguageModel
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers.predicted_expert_choice import PredictedExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition
from moe_jax.training.step import forward

BATCHES = [tiny.make_batch(8, 12, seed) for seed in range(3)]
for array in (BATCHES[2].inputs_BS, BATCHES[2].targets_BS, BATCHES[2].weights_BS):
    array[-1] = 0


def observed(model, variables):
    """Returns probabilities and choices of the real tokens, [L, T, E] each."""

    @jax.jit
    def route(batch):
        context = RoutingContext(keeps_scores=True, keeps_choices=True)
        routing = forward(model, variables, batch, context).routing
        return routing.score_BSE, routing.chosen_BSE

    parts = [[np.asarray(a)[:, batch.mask_BS] for a in route(batch)] for batch in BATCHES]
    return tuple(np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))


def test_it_is_the_minimum_that_scipy_finds():
    model, variables = tiny.make(PredictedExpertChoice(1.0, Pool("sequence")))
    kernel = "groups/layers/0/ffn/router_kernel"
    params = variables.params | {kernel: variables.params[kernel] * 3}
    variables = dataclasses.replace(variables, params=params)
    found = fit_predictors(model, variables, BATCHES, 1.0, ridge=1e-2)
    assert (found.tokens, found.tokens_per_expert) == (23 * 12, 23 * 3)
    fitted = read_predictors(found.variables)
    score_LTE, chosen_LTE = observed(model, variables)
    for layer, expert in [(0, 0), (0, 3), (1, 2)]:
        p_TE = score_LTE[layer].astype(np.float64)
        features = np.concatenate([np.log(p_TE * 4), np.ones((len(p_TE), 1))], axis=1)
        chosen = chosen_LTE[layer, :, expert]

        def objective(w, features=features, chosen=chosen):
            logits = features @ w
            return (np.logaddexp(0, logits) - chosen * logits).mean() + 0.5e-2 * (w @ w)

        best = minimize(objective, np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x
        np.testing.assert_allclose(fitted[layer, expert], best, rtol=2e-3, atol=2e-3)
    unchanged = {p for p in variables.router_state if p.endswith("threshold")}
    for path in unchanged:
        assert found.variables.router_state[path] is variables.router_state[path]


def test_a_probability_of_zero_is_a_finite_feature():
    features = np.asarray(features_of(np.array([1.0, 0.0], np.float32)))
    assert np.isfinite(features).all()
    assert features[0] == pytest.approx(np.log(2))
    assert features[2] == 1.0


@pytest.mark.slow
@pytest.mark.multidevice
def test_on_a_mesh_it_is_that_of_one_device():
    router = PredictedExpertChoice(1.0, Pool("batch"))
    alone, variables = tiny.make(router)
    expected = read_predictors(fit_predictors(alone, variables, BATCHES, 1.0).variables)
    partition = make_partition(MeshConfig(data=4, tensor=2), jax.devices())
    model = LanguageModel(alone.config, router, partition)
    placed = jax.device_put(variables, model.shardings())
    sample = [partition.place_rows(batch) for batch in BATCHES]
    found = fit_predictors(model, placed, sample, 1.0)
    np.testing.assert_allclose(read_predictors(found.variables), expected, rtol=1e-2, atol=1e-2)
    assert found.tokens == 23 * 12
