"""Thresholds from a sample: those of one pool of the whole sample, layer by layer, on any mesh."""

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest
import tiny

from moe_jax.evaluation import calibration
from moe_jax.evaluation.calibration import (
    calibrate_thresholds,
    local_parts,
    read_thresholds,
    with_thresholds,
)
from moe_jax.evaluation.causal_gap import CausalVariant, measure_gaps
from moe_jax.models.functional import LanguageModel
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition
from moe_jax.training.step import forward

ROWS, LENGTH, EXPERTS = 16, 12, 4


def batch(seed=0, padded=True):
    """Returns rows that do not begin with the same token, for its scores would tie."""
    made = tiny.make_batch(ROWS, LENGTH, seed)
    inputs = tiny.tokens(ROWS, LENGTH, seed + 100)
    real = np.arange(LENGTH) < np.where(np.arange(ROWS) % 3, LENGTH, 7)[:, None]
    if not padded:
        return dataclasses.replace(made, inputs_BS=inputs)
    return dataclasses.replace(
        made,
        inputs_BS=inputs * real,
        targets_BS=made.targets_BS * real,
        weights_BS=made.weights_BS * real,
    )


def make(kind="batch", capacity_factor=1.0, mesh=None):
    router = ExpertChoice(capacity_factor, Pool(kind))
    model, variables = tiny.make(router, num_layers=6, moe_every=2)
    # Routers that are surer than new ones, so that what a layer sees depends on those before it.
    kernel = "groups/layers/0/ffn/router_kernel"
    params = variables.params | {kernel: variables.params[kernel] * 4}
    variables = dataclasses.replace(variables, params=params)
    if mesh is None:
        return model, variables
    sizes = [getattr(mesh, name) for name in ("slice", "data", "fsdp", "expert", "tensor")]
    partition = make_partition(mesh, jax.devices()[: int(np.prod(sizes))])
    sharded = LanguageModel(model.config, router, partition)
    return sharded, jax.device_put(variables, sharded.shardings())


@functools.partial(jax.jit, static_argnums=0)
def routing(model, variables, sample):
    """Returns scores and choices, [L, B, S, E] each."""
    context = RoutingContext(keeps_scores=True, keeps_choices=True)
    found = forward(model, variables, sample, context).routing
    return found.score_BSE, found.chosen_BSE


def load(model, variables, sample):
    """Returns the tokens of every expert, [L, E]."""
    return np.asarray(routing(model, variables, sample)[1]).sum((1, 2))


@pytest.mark.parametrize("capacity_factor", [1.0, pytest.param(2.5, marks=pytest.mark.slow)])
def test_a_sample_that_was_one_pool_is_routed_as_in_training(capacity_factor):
    """Its experts then choose the same tokens, so that nothing flips and the losses are equal."""
    model, variables = make(capacity_factor=capacity_factor)
    sample = batch()
    tokens = int(sample.mask_BS.sum())
    found = calibrate_thresholds(model, variables, [sample], capacity_factor)
    k = int(tokens * capacity_factor / EXPERTS)
    assert (found.tokens, found.tokens_per_expert) == (tokens, k)
    assert [one.routing for one in found.passes] == ["trained", "causal"]
    assert found.passes[1].load_error == 0.0
    causal = model.causal()
    np.testing.assert_array_equal(load(causal, found.variables, sample), np.full((3, EXPERTS), k))
    report = measure_gaps(model, variables, [CausalVariant(causal, found.variables)], [sample])
    (gap,) = report.gaps
    assert gap.loss == pytest.approx(report.loss, rel=1e-5)
    assert [layer.flipped_share for layer in gap.layers] == [0.0] * 3
    assert [layer.max_load for layer in gap.layers] == [1.0] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sequence", "position"])
def test_several_passes_are_layer_by_layer_calibration(kind, monkeypatch):
    """One layer after the other: route causally, sort the scores of a layer, set its thresholds."""
    monkeypatch.setattr(calibration, "LOAD_TOLERANCE", 0.0)
    model, variables = make(kind)
    causal, samples = model.causal(), [batch(0), batch(1)]
    real = np.concatenate([sample.mask_BS for sample in samples])
    k = real.sum() // EXPERTS
    expected = variables
    for layer in range(3):
        scores = [routing(causal, expected, sample)[0][layer] for sample in samples]
        score_BSE = np.concatenate(scores)
        thresholds_LE = read_thresholds(expected).copy()
        score_TE = np.sort(score_BSE[real], axis=0)
        thresholds_LE[layer] = (score_TE[-k] + score_TE[-k - 1]) / 2
        expected = with_thresholds(expected, thresholds_LE)
    found = calibrate_thresholds(model, variables, samples, 1.0)
    assert [one.routing for one in found.passes] == ["trained", "causal", "causal"]
    np.testing.assert_allclose(
        read_thresholds(found.variables), read_thresholds(expected), rtol=1e-5
    )
    loads = sum(load(causal, found.variables, sample) for sample in samples)
    np.testing.assert_array_equal(loads, np.full((3, EXPERTS), k))
    np.testing.assert_array_equal(read_thresholds(variables), np.full((3, EXPERTS), 0.25))


@pytest.mark.slow
def test_scores_are_the_softmax_that_experts_choose_by():
    model, variables = make()
    made = routing(model, variables, batch(padded=False))
    score_LTE, chosen_LTE = (np.asarray(array).reshape(3, -1, EXPERTS) for array in made)
    np.testing.assert_allclose(score_LTE.sum(2), 1.0, rtol=1e-5)
    k = ROWS * LENGTH // EXPERTS
    for layer, expert in itertools.product(range(3), range(EXPERTS)):
        best = np.argsort(-score_LTE[layer, :, expert])[:k]
        assert set(np.flatnonzero(chosen_LTE[layer, :, expert])) == set(best)


@pytest.mark.multidevice
@pytest.mark.parametrize(
    ("mesh", "kind"),
    [
        (MeshConfig(data=8), "batch"),
        pytest.param(MeshConfig(data=2, fsdp=2, tensor=2), "batch", marks=pytest.mark.slow),
        pytest.param(MeshConfig(data=2, expert=4), "batch", marks=pytest.mark.slow),
        pytest.param(MeshConfig(data=4, tensor=2), "sequence", marks=pytest.mark.slow),
        pytest.param(MeshConfig(data=2, expert=2, tensor=2), "position", marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_on_a_mesh_they_are_those_of_one_device(mesh, kind):
    """Pools span the devices (but those of a row): all of them see the same sample."""
    reports, thresholds = [], []
    for where in (None, mesh):
        model, variables = make(kind, mesh=where)
        samples = [model.partition.place_rows(batch(seed)) for seed in range(3)]
        found = calibrate_thresholds(model, variables, samples, 1.0)
        thresholds.append(read_thresholds(found.variables))
        variant = CausalVariant(model.causal(), found.variables)
        reports.append(measure_gaps(model, variables, [variant], [batch(5), batch(6)]))
    np.testing.assert_allclose(thresholds[1], thresholds[0], rtol=2e-5)
    alone, sharded = reports
    assert sharded.tokens == alone.tokens
    assert sharded.loss == pytest.approx(alone.loss, rel=2e-5)
    assert sharded.gaps[0].loss == pytest.approx(alone.gaps[0].loss, rel=2e-5)


@pytest.mark.multidevice
def test_every_part_of_a_sharded_array_counts_once():
    partition = make_partition(MeshConfig(data=4, tensor=2), jax.devices())
    rows = np.arange(8 * 3).reshape(8, 3)
    parts = local_parts(partition.place_rows({"x": rows})["x"])
    assert len(parts) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate(parts), axis=0), rows)
