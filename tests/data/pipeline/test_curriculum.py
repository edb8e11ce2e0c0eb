"""Curricula: the order of sequences, epochs, and checkpoints."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
from etils import epath
from tiers import slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.curriculum import CurriculumBatches, curriculum_order, read_train_rows
from moe_jax.data.pipeline.input_pipeline import TrainBatches
from moe_jax.data.pipeline.model_features import get_dataset
from moe_jax.data.sources.curriculum_source import describe_scored_data
from moe_jax.errors import UserError

OPEN = []
CURRICULA = ("similarity", "mean", "distance")


def slow_order(vectors, how):
    """Returns the order by comparing rows two at a time, in exact sums of floats."""
    totals = [math.fsum(v) for v in vectors]
    easiest = vectors[totals.index(min(totals))]

    def size(v):
        return math.sqrt(math.fsum(x * x for x in v))

    def key(v):
        if how == "mean":
            return math.fsum(v) / len(v)
        if how == "distance":
            return size([x - y for x, y in zip(v, easiest, strict=True)])
        if size(v) == 0 or size(easiest) == 0:
            return -float(size(v) == size(easiest))
        product = math.fsum(x * y for x, y in zip(v, easiest, strict=True))
        return -product / (size(v) * size(easiest))

    def compare(i, j):
        for a, b in (
            (key(vectors[i]), key(vectors[j])),
            (totals[i], totals[j]),
            (i, j),
        ):
            if abs(a - b) > 1e-9:
                return -1 if a < b else 1
        return 0

    return sorted(range(len(vectors)), key=functools.cmp_to_key(compare))


@pytest.mark.parametrize("how", CURRICULA)
@pytest.mark.parametrize("kind", ["real", "ties", "zero_reference", "zeros", "one_layer", "same"])
def test_orders_by_comparing_all_rows(how, kind):
    random = np.random.default_rng(7)
    vectors = {
        "real": random.random((60, 3)),
        # Multiples: the same cosine, other sums; and rows that are there several times.
        "ties": random.integers(1, 4, (60, 1)) * random.integers(1, 3, (60, 2)) / 8,
        "zero_reference": np.where(random.random((60, 1)) < 0.2, 0, random.random((60, 2))),
        "zeros": np.zeros((9, 2)),
        "one_layer": random.integers(0, 5, (60, 1)) / 4,
        "same": np.full((9, 3), 0.3),
    }[kind]
    found = curriculum_order(vectors.astype(np.float32), how)
    expected = slow_order(vectors.astype(np.float32).astype(float).tolist(), how)
    assert found.tolist() == expected


def test_the_orders_by_hand():
    vectors = np.array([[0.4, 0.4], [0.0, 0.3], [0.0, 0.9], [0.2, 0.3], [0.1, 0.2]])
    # The easiest are rows 1 and 4 with a sum of 0.3; row 1 is the earlier.
    assert curriculum_order(vectors, "mean").tolist() == [1, 4, 3, 0, 2]
    # Row 2 lies in the same direction, however hard it is.
    assert curriculum_order(vectors, "similarity").tolist() == [1, 2, 4, 3, 0]
    assert curriculum_order(vectors, "distance").tolist() == [1, 4, 3, 0, 2]
    assert curriculum_order(np.array([[0, 0], [0.5, 0], [0, 0.2]]), "similarity").tolist() == [
        0,
        2,
        1,
    ]


def fake_rows(count, length=4):
    return {
        "decoder_target_tokens": 1 + np.arange(count * length).reshape(count, length),
        "decoder_input_tokens": np.zeros((count, length), int),
        "decoder_loss_weights": np.ones((count, length), int),
    }


CONFIG = DataConfig(sequence_length=4, batch_size=4, curriculum="mean")


def taken(batches, steps, orders):
    """Returns the rows of some steps, by number, each epoch in its order."""
    found = []
    for _ in range(steps):
        if batches.needs_order:
            batches.use(orders[batches.place[0]])
        found.append((next(batches).targets_BS[:, 0] - 1) // 4)
    return np.array(found).reshape(-1)


@pytest.fixture
def orders():
    return [np.random.default_rng(seed).permutation(18) for seed in range(4)]


def test_an_epoch_takes_every_row_once_but_the_rest(orders):
    batches = CurriculumBatches(CONFIG, rows=fake_rows(18))
    assert batches.steps_per_epoch == 4
    found = taken(batches, 12, orders).reshape(3, 16)
    for epoch in range(3):
        np.testing.assert_array_equal(found[epoch], orders[epoch][:16])
        assert len(set(found[epoch])) == 16
    assert batches.place == (3, 0)
    assert batches.needs_order


@pytest.mark.parametrize("done", [0, 3, 4, 6, 8])
def test_a_restored_position_goes_on_exactly(tmp_path, orders, done):
    """In the middle of an epoch and exactly where one starts."""
    batches = CurriculumBatches(CONFIG, rows=fake_rows(18))
    taken(batches, done, orders)
    batches.save(epath.Path(tmp_path) / "data")
    expected = taken(batches, 7, orders)
    restored = CurriculumBatches(CONFIG, rows=fake_rows(18))
    # It was elsewhere before.
    taken(restored, 2, orders)
    restored.restore(epath.Path(tmp_path) / "data")
    assert restored.needs_order
    assert restored.place == divmod(done, 4)
    np.testing.assert_array_equal(taken(restored, 7, orders), expected)


def test_parts_of_a_batch_are_those_of_the_whole(orders):
    whole, *parts = (
        taken_all(CurriculumBatches(CONFIG, part, fake_rows(18)), orders)
        for part in (None, (0, 1), (1, 4))
    )
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def taken_all(batches, orders):
    return taken(batches, 8, orders).reshape(8, -1)


def test_an_epoch_without_an_order_is_a_mistake():
    with pytest.raises(ValueError, match="no order yet"):
        next(CurriculumBatches(CONFIG, rows=fake_rows(18)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2}, "batch_size: 4 -> 2"),
        ({"task": "other"}, "task: 'embedded' -> 'other'"),
        ({"curriculum": "distance"}, "curriculum: 'mean' -> 'distance'"),
        ({"objective": "prefix_lm"}, "objective: 'lm' -> 'prefix_lm'"),
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"pack": True}, "pack: False -> True"),
    ],
)
def test_a_position_of_other_data_is_refused(tmp_path, change, message):
    CurriculumBatches(CONFIG, rows=fake_rows(18)).save(epath.Path(tmp_path))
    other = CurriculumBatches(dataclasses.replace(CONFIG, **change), rows=fake_rows(18))
    with pytest.raises(UserError, match=message):
        other.restore(epath.Path(tmp_path))


def test_a_position_among_other_rows_is_refused(tmp_path):
    CurriculumBatches(CONFIG, rows=fake_rows(18)).save(epath.Path(tmp_path))
    with pytest.raises(UserError, match="rows: 18 -> 22"):
        CurriculumBatches(CONFIG, rows=fake_rows(22)).restore(epath.Path(tmp_path))
    with pytest.raises(UserError, match=r"Data.curriculum was changed"):
        CurriculumBatches(CONFIG, rows=fake_rows(18)).restore(epath.Path(tmp_path) / "none")


def test_an_unknown_curriculum_is_refused():
    with pytest.raises(UserError, match=r"'means' is unknown; known: .* Did you mean 'mean'"):
        DataConfig(curriculum="means")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("curriculum") / "book.txt"
    path.write_text("\n".join(f"Chapter {i} tells of whale number {i * 7}." for i in range(400)))
    return DataConfig(f"text:{path}", sequence_length=32, batch_size=8, curriculum="mean", seed=5)


def test_rows_are_read_once_in_stored_order(text):
    rows = read_train_rows(text)
    tokens = np.concatenate(
        [r["decoder_target_tokens"] for r in get_dataset(text, "train", False).as_numpy_iterator()]
    )
    np.testing.assert_array_equal(rows["decoder_target_tokens"].reshape(-1), tokens)
    with pytest.raises(UserError, match=r"training rows, fewer than one batch of 4096"):
        read_train_rows(dataclasses.replace(text, batch_size=4096))


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "pack"), [("lm", True), slow("prefix_lm", False)])
def test_a_scored_order_is_a_task(text, tmp_path, objective, pack):
    """The rows that were scored, masked as they were, first to last, epoch after epoch."""
    scored = dataclasses.replace(text, objective=objective, pack=pack)
    rows = read_train_rows(scored)
    count = len(rows["decoder_target_tokens"])
    order = np.random.default_rng(1).permutation(count)
    np.save(tmp_path / "order.npy", order)
    (tmp_path / "about.json").write_text(json.dumps(describe_scored_data(scored)))
    config = dataclasses.replace(
        text, task=f"curriculum:{tmp_path}", curriculum=None, batch_size=16, seed=99, pack=pack
    )
    batches = TrainBatches(config)
    OPEN.append(batches)
    epochs = [next(batches) for _ in range(2 * count // 16)]
    places = np.concatenate([order, order])[: len(epochs) * 16]
    for field, name in (
        ("targets_BS", "decoder_target_tokens"),
        ("weights_BS", "decoder_loss_weights"),
        ("inputs_BS", "decoder_input_tokens"),
    ):
        found = np.concatenate([getattr(batch, field) for batch in epochs])
        np.testing.assert_array_equal(found, rows[name][places], err_msg=name)
    with pytest.raises(UserError, match=r"have 32 tokens; set Data.sequence_length"):
        get_dataset(dataclasses.replace(config, sequence_length=16), "train", True)
    # A new scoring of the same data in this directory is read.
    np.save(tmp_path / "order.npy", order[::-1])
    again = TrainBatches(config)
    OPEN.append(again)
    first = next(again).targets_BS
    np.testing.assert_array_equal(first, rows["decoder_target_tokens"][order[::-1][:16]])


def test_a_directory_without_scores_is_refused(text, tmp_path):
    config = dataclasses.replace(text, task=f"curriculum:{tmp_path}", curriculum=None)
    with pytest.raises(UserError, match=r"has no complete scores .*moe-jax data score"):
        get_dataset(config, "train", True)
