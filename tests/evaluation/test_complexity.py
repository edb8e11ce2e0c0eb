"""Complexity vectors: shares of tokens with two or more experts, by layer."""

import dataclasses

import choice_oracles
import jax
import numpy as np
import oracles
import pytest
import tiny
from etils import epath
from tiers import mostly_slow

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.curriculum import CurriculumBatches, curriculum_order
from moe_jax.errors import UserError
from moe_jax.evaluation import complexity
from moe_jax.evaluation.complexity import (
    ComplexityScorer,
    EpochOrderer,
    make_order,
    read_order,
    read_vectors,
    score_rows,
)
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition

ROWS, LENGTH = 8, 12


def padded_batch(rows=ROWS, seed=1):
    """Returns rows with padding at the end; the last but one is padding only."""
    batch = tiny.make_batch(rows, LENGTH, seed)
    sizes = np.random.default_rng(seed).integers(LENGTH // 2, LENGTH + 1, rows)
    sizes[-2] = 0
    real = np.arange(LENGTH) < sizes[:, None]
    return Batch(
        batch.inputs_BS * real, batch.targets_BS * real, batch.weights_BS * real.astype(np.float32)
    )


def embedding_router(router, **changes):
    """Returns a model whose first layer routes by the token: attention adds nothing to it.

    The router then sees the normalised embedding, which can be computed by hand.
    """
    model, variables = tiny.make(router, num_layers=1, moe_every=1, **changes)
    params = dict(variables.params)
    (out,) = [name for name in params if name.endswith("attention/output")]
    params[out] = params[out] * 0
    return model, Variables(params, variables.router_state)


def logits_by_hand(params, batch):
    """Returns the router's logits, [B, S, E], in float64 from the definition of the layer."""

    def get(ending):
        (name,) = [name for name in params if name.endswith(ending)]
        return np.asarray(params[name], np.float64)

    x_BSD = get("embedding")[np.asarray(batch.inputs_BS)] * np.sqrt(32)
    x_BSD = x_BSD / np.sqrt((x_BSD**2).mean(-1, keepdims=True) + 1e-6)
    return (x_BSD * get("ffn_norm/scale")[0]) @ get("router_kernel")[0]


def shares(chosen_BSE, batch):
    """Returns the share of each row's real tokens with two or more experts, [B, 1]."""
    mask_BS = np.asarray(batch.mask_BS)
    several_BS = (chosen_BSE.sum(-1) >= 2) & mask_BS
    return (several_BS.sum(1) / np.maximum(mask_BS.sum(1), 1))[:, None]


@pytest.mark.parametrize("threshold", mostly_slow([0.15, 0.4]))
def test_adaptive_gating_by_hand(threshold):
    model, variables = embedding_router(Adaptive(threshold=threshold))
    # Far apart enough that some tokens go to one expert.
    params = {
        name: value * 3 if name.endswith("router_kernel") else value
        for name, value in variables.params.items()
    }
    variables, batch = Variables(params, variables.router_state), padded_batch()
    found = ComplexityScorer(model)(variables, batch)
    weight_BSE, _ = choice_oracles.adaptive(
        logits_by_hand(params, batch), np.asarray(batch.mask_BS), threshold
    )
    expected = shares(weight_BSE > 0, batch)
    assert found.shape == (ROWS, 1)
    assert len(set(expected[:, 0])) > 2
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[-2] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "pool", mostly_slow([Pool("batch", 2), Pool("sequence"), Pool("position", 4)])
)
def test_expert_choice_by_hand(pool):
    router = ExpertChoice(capacity_factor=2.0, pool=pool)
    model, variables = embedding_router(router)
    batch = padded_batch()
    mask_BS = np.asarray(batch.mask_BS)
    probability_BSE = oracles.softmax(logits_by_hand(variables.params, batch))
    places = oracles.pools(pool.kind, pool.rows, ROWS, LENGTH)
    index = np.array(places)
    choices = oracles.expert_choice(
        probability_BSE[index[..., 0], index[..., 1]], mask_BS[index[..., 0], index[..., 1]], 2.0
    )
    chosen_BSE = np.zeros(probability_BSE.shape, bool)
    for tokens, by_expert in zip(places, choices, strict=True):
        for e, taken in enumerate(by_expert):
            for n in taken:
                chosen_BSE[(*tokens[n], e)] = True
    found = ComplexityScorer(model)(variables, batch)
    expected = shares(chosen_BSE, batch)
    assert len(set(expected[:, 0])) > 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_layers_are_in_the_order_of_the_model():
    """Each MoE layer's column: a layer whose router cannot tell experts apart gives all of them."""
    model, variables = tiny.make(Adaptive(threshold=0.0), num_layers=4, moe_every=2)
    (kernel,) = [name for name in variables.params if name.endswith("router_kernel")]
    assert variables.params[kernel].shape[0] == 2
    for layer in range(2):
        params = dict(variables.params)
        params[kernel] = params[kernel].at[layer].set(0.0)
        found = ComplexityScorer(model)(Variables(params, variables.router_state), padded_batch())
        assert found.shape == (ROWS, 2)
        # A tie of all experts: a gap of 0, so both; else nearly never.
        real = [row for row in range(ROWS) if row != ROWS - 2]
        np.testing.assert_array_equal(found[real, layer], 1.0)
        np.testing.assert_array_equal(found[:, 1 - layer], 0.0)


def test_a_dense_model_has_no_vectors():
    model = LanguageModel(tiny.config(num_experts=0), None)
    with pytest.raises(UserError, match=r"dense model .* needs Model.num_experts"):
        ComplexityScorer(model)


# A pool on one device, and pools whose rows lie on several.
MESHES = [
    (Adaptive(threshold=0.1), MeshConfig(data=8)),
    (ExpertChoice(pool=Pool("sequence")), MeshConfig(data=4, expert=2)),
    (ExpertChoice(pool=Pool("position", 16)), MeshConfig(data=8)),
    (ExpertChoice(pool=Pool("batch", 8)), MeshConfig(data=2, fsdp=2, expert=2)),
]


@pytest.mark.slow
@pytest.mark.multidevice
@pytest.mark.parametrize(("router", "mesh"), MESHES, ids=["pairs", "row", "position", "batch"])
def test_a_mesh_gives_the_vectors_of_one_device(all_devices, router, mesh):
    alone, variables = tiny.make(router, num_layers=2)
    batch = padded_batch(16)
    expected = ComplexityScorer(alone)(variables, batch)
    assert len(set(expected.ravel())) > 3
    spread = LanguageModel(alone.config, router, make_partition(mesh, jax.devices()[:8]))
    placed = jax.device_put(jax.device_get(variables), spread.shardings())
    found = ComplexityScorer(spread)(placed, batch)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def rows_of_tokens(count, seed=0):
    batch = tiny.make_batch(count, LENGTH, seed)
    return {
        "decoder_target_tokens": batch.targets_BS,
        "decoder_input_tokens": batch.inputs_BS,
        "decoder_loss_weights": np.ones(batch.targets_BS.shape, int),
    }


class Counting:
    """A scorer that counts its calls, and fails on request."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = 0, stop_after

    def __call__(self, variables, batch):
        if self.calls == self.stop_after:
            raise KeyboardInterrupt
        self.calls += 1
        scale = float(variables.params["scale"][0])
        return scale * np.asarray(batch.targets_BS)[:, :2].astype(np.float32) / 64


def parameters(scale=1.0):
    return Variables({"scale": jax.numpy.full((1,), scale)}, {})


CONFIG = DataConfig(sequence_length=LENGTH, batch_size=4, curriculum="mean")


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(complexity, "ROWS_PER_PART", 8)


def vectors_of(rows, scale=1.0):
    return (np.float32(scale) * rows["decoder_target_tokens"][:, :2].astype(np.float32)) / 64


@pytest.mark.parametrize("count", [8, 16, 19, 21, 3])
def test_all_rows_are_scored_once_in_parts(tmp_path, small_parts, count):
    rows, scorer = rows_of_tokens(count), Counting()
    found = score_rows(scorer, parameters(), rows, 4, epath.Path(tmp_path), {})
    np.testing.assert_allclose(found, vectors_of(rows))
    assert scorer.calls == -(-count // 4)
    assert len(list(tmp_path.glob("part_*.npy"))) == -(-count // 8)
    np.testing.assert_array_equal(read_vectors(epath.Path(tmp_path)), found)


def test_a_stopped_job_goes_on_with_the_missing_part(tmp_path, small_parts):
    rows, directory = rows_of_tokens(21), epath.Path(tmp_path) / "scores"
    with pytest.raises(KeyboardInterrupt):
        make_order(Counting(stop_after=3), parameters(), rows, CONFIG, directory, {"step": 1})
    assert [p.name for p in directory.glob("part*")] == ["part_00000.npy"]
    assert read_order(directory) is None
    scorer = Counting()
    order = make_order(scorer, parameters(), rows, CONFIG, directory, {"step": 1})
    # The first part, of two batches, is there.
    assert scorer.calls == 6 - 2
    np.testing.assert_array_equal(order, curriculum_order(vectors_of(rows), "mean"))
    np.testing.assert_array_equal(read_order(directory), order)
    again = Counting()
    make_order(again, parameters(), rows, CONFIG, directory, {"step": 1})
    assert again.calls == 0
    # Another order of the same scores.
    other = dataclasses.replace(CONFIG, curriculum="distance")
    found = make_order(again, parameters(), rows, other, directory, {"step": 1})
    assert again.calls == 0
    np.testing.assert_array_equal(found, curriculum_order(vectors_of(rows), "distance"))
    np.testing.assert_array_equal(read_order(directory), found)


@pytest.mark.parametrize("change", ["parameters", "step", "rows", "data"])
def test_scores_of_anything_else_are_not_used(tmp_path, small_parts, change):
    rows, directory = rows_of_tokens(21), epath.Path(tmp_path)
    make_order(Counting(), parameters(), rows, CONFIG, directory, {"step": 1})
    (directory / "notes.txt").write_text("somebody's own")
    # A smaller number of rows leaves no part of the larger.
    rows = rows_of_tokens(12) if change == "rows" else rows
    config = dataclasses.replace(CONFIG, seed=1) if change == "data" else CONFIG
    scale = 2.0 if change == "parameters" else 1.0
    about = {"step": 2 if change == "step" else 1}
    scorer = Counting()
    make_order(scorer, parameters(scale), rows, config, directory, about)
    assert scorer.calls == -(-len(rows["decoder_target_tokens"]) // 4)
    np.testing.assert_allclose(read_vectors(directory), vectors_of(rows, scale))
    assert (directory / "notes.txt").exists()


def test_epochs_are_ordered_by_the_model_they_start_with(tmp_path):
    rows, directory = rows_of_tokens(10), epath.Path(tmp_path)

    class Turning(Counting):
        """A scorer whose order is reversed by the sign of the parameters."""

        def __call__(self, variables, batch):
            return 0.5 + super().__call__(variables, batch) / 2

    def start():
        batches = CurriculumBatches(CONFIG, rows=rows)
        return batches, EpochOrderer(Turning(), batches, CONFIG, directory)

    batches, orders = start()
    found = []
    for step in range(4):
        if orders.needs_order:
            line = orders.start_epoch(parameters(1.0 if step < 2 else -1.0))
            assert line == f"epoch {step // 2}: 10 rows ordered by mean"
        found.append(next(batches).targets_BS)
        if step == 2:
            batches.save(directory / "data")
    expected = np.argsort(vectors_of(rows).sum(1), kind="stable")
    np.testing.assert_array_equal(
        np.concatenate(found[:2]), rows["decoder_target_tokens"][expected[:8]]
    )
    turned = np.argsort(-vectors_of(rows).sum(1), kind="stable")
    np.testing.assert_array_equal(
        np.concatenate(found[2:]), rows["decoder_target_tokens"][turned[:8]]
    )
    # In the middle of an epoch its order is read, whatever the model is by now.
    batches, orders = start()
    batches.restore(directory / "data")
    assert orders.start_epoch(parameters(5.0)) == "epoch 1 goes on in its order"
    np.testing.assert_array_equal(next(batches).targets_BS, found[3])
    (directory / "epoch_0001" / "order.npy").unlink()
    batches, orders = start()
    batches.restore(directory / "data")
    with pytest.raises(UserError, match=r"epoch_0001 has no order.npy: .* is lost"):
        orders.start_epoch(parameters())
