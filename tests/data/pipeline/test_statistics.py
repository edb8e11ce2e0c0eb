"""Statistics of splits."""

import dataclasses

import numpy as np
import pytest
import seqio
import tensorflow as tf
from tiers import mostly_slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.statistics import compute_statistics
from moe_jax.data.sources.user_files import find_user_files
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.data.tasks.vocabulary_size import vocabulary_size
from moe_jax.errors import UserError

VOCABULARY = load_vocabulary("embedded")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Returns the configuration of a text, and its pieces that are not held out."""
    lines = [f"Line {i}, {'whale ' * (i % 17)}" for i in range(64 * 45)]
    path = tmp_path_factory.mktemp("statistics") / "book.txt"
    path.write_text("\n".join(lines))
    config = DataConfig(f"text:{path}", sequence_length=48, batch_size=4)
    pieces = find_user_files(config.task).source().get_dataset("train", shuffle=False)
    return config, [piece["text"].decode() for piece in pieces.as_numpy_iterator()]


def quantiles(sizes):
    names = {"median_tokens": 0.5, "p95_tokens": 0.95, "longest_tokens": 1.0}
    return {name: np.quantile(sizes, q) for name, q in names.items()}


def test_a_plain_text_is_counted_by_documents_and_rows(text):
    config, documents = text
    found = compute_statistics(config, "train", 0)
    sizes = [len(VOCABULARY.encode(d)) + 1 for d in documents]
    assert found.examples == len(documents)
    assert found.features["targets"].as_dict() == {
        "tokens": sum(sizes),
        "bytes": sum(len(d.encode()) for d in documents),
        "bytes_per_token": sum(len(d.encode()) for d in documents) / sum(sizes),
        "unknown_tokens": 0,
        "examples_not_utf8": 0,
        **quantiles(sizes),
    }
    assert found.rows == -(-sum(sizes) // 48)
    assert found.fill == pytest.approx(sum(sizes) / (found.rows * 48))
    assert found.loss_share == 1.0


@pytest.mark.parametrize("objective", mostly_slow(["span_corruption", "prefix_lm"]))
def test_an_objective_cuts_no_document(text, objective):
    """Documents are counted as they are; a part of each row is in the loss."""
    config, documents = text
    found = compute_statistics(dataclasses.replace(config, objective=objective), "train", 0)
    assert found.examples == len(documents)
    assert list(found.features) == ["targets"]
    assert "examples_cut" not in found.features["targets"].as_dict()
    assert 0 < found.loss_share < 1
    assert found.fill > 0.9


def test_a_limit_reads_so_many(text):
    config, documents = text
    found = compute_statistics(config, "train", 7)
    sizes = [len(VOCABULARY.encode(d)) + 1 for d in documents[:7]]
    assert found.examples == 7
    assert found.features["targets"].as_dict()["tokens"] == sum(sizes)
    assert (found.rows, found.fill) == (7, 1.0)


@pytest.fixture(scope="module")
def prompted():
    """Returns a registered task with inputs and targets, and the sizes of its examples."""
    rows = [("whale " * (3 * i + 1), "ship " * (i % 6 + 1)) for i in range(20)]
    rows[3] = ("broken \ufffd text", "b")

    def source(split, shuffle_files, seed=None):
        inputs, targets = map(list, zip(*rows, strict=True))
        return tf.data.Dataset.from_tensor_slices({"inputs": inputs, "targets": targets})

    feature = seqio.Feature(VOCABULARY, add_eos=True, dtype=tf.int32)
    seqio.TaskRegistry.add(
        "counted",
        source=seqio.FunctionDataSource(source, splits=["train"]),
        preprocessors=[
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
        metric_fns=[],
    )
    sizes = np.array([[len(VOCABULARY.encode(text)) + 1 for text in row] for row in rows])
    return DataConfig("counted", sequence_length=24, batch_size=2, targets_length=5), sizes


def test_examples_that_do_not_fit_are_counted(prompted):
    """A target has its limit, the inputs what the target leaves."""
    config, sizes = prompted
    found = compute_statistics(config, "train", 0)
    figures = {name: feature.as_dict() for name, feature in found.features.items()}
    targets = np.minimum(sizes[:, 1], 5)
    assert figures["targets"]["examples_cut"] == (sizes[:, 1] > 5).sum() > 0
    assert figures["inputs"]["examples_cut"] == (sizes[:, 0] > 24 - targets).sum() > 0
    for column, name in enumerate(("inputs", "targets")):
        assert figures[name]["tokens"] == sizes[:, column].sum()
        assert {n: figures[name][n] for n in quantiles([0])} == quantiles(sizes[:, column])
    assert figures["inputs"]["examples_not_utf8"] == 1
    inputs = np.minimum(sizes[:, 0], 24 - targets)
    assert found.rows == len(sizes)
    assert found.fill == pytest.approx((inputs + targets).sum() / (24 * len(sizes)))
    assert found.loss_share == pytest.approx(targets.sum() / (inputs + targets).sum())


def test_packed_rows_are_fewer_and_fuller(prompted):
    config, _ = prompted
    plain = compute_statistics(config, "train", 0)
    packed = compute_statistics(dataclasses.replace(config, pack=True), "train", 0)
    assert packed.rows < plain.rows
    assert packed.fill > plain.fill
    assert packed.loss_share == pytest.approx(plain.loss_share)
    assert packed.features["inputs"].as_dict() == plain.features["inputs"].as_dict()


def test_text_and_prompted_task_in_a_mixture(text, prompted):
    config, documents = text
    both = dataclasses.replace(config, task={config.task: 1, "counted": 1}, objective="prefix_lm")
    found = compute_statistics(both, "train", 0)
    sizes = prompted[1]
    assert found.examples == len(documents) + len(sizes)
    expected = sum(len(VOCABULARY.encode(d)) + 1 for d in documents) + sizes[:, 1].sum()
    assert found.features["targets"].as_dict()["tokens"] == expected
    assert found.features["inputs"].as_dict()["tokens"] == sizes[:, 0].sum()


def test_unknown_pieces_and_splits(text, tmp_path):
    config, _ = text
    with pytest.raises(UserError, match="no split 'tset'; it has: train, validation"):
        compute_statistics(config, "tset", 0)
    (tmp_path / "one.txt").write_text("A whale.\n")
    # One piece, to train on: none is held out.
    one = dataclasses.replace(config, task=f"text:{tmp_path}/one.txt")
    assert compute_statistics(one, "train", 0).examples == 1
    with pytest.raises(UserError, match="there are no examples in the split 'validation'"):
        compute_statistics(one, "validation", 0)


def test_the_size_of_a_vocabulary_without_tensorflow_is_seqios():
    assert vocabulary_size("embedded") == VOCABULARY.vocab_size
