"""Training and evaluation batches, and exact checkpoints of their iterator."""

import numpy as np
import pytest
import seqio
import tensorflow as tf
from etils import epath
from tiers import mostly_slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import (
    TrainBatches,
    eval_batches,
    token_bytes,
    vocabulary_of,
)
from moe_jax.data.sources.embedded_corpus import embedded_documents
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

SMALL = DataConfig(sequence_length=64, batch_size=4, seed=3)


def test_a_row_is_the_targets_shifted_right():
    batch = next(TrainBatches(SMALL))
    assert batch.targets_BS.shape == (4, 64)
    np.testing.assert_array_equal(batch.inputs_BS[:, 1:], batch.targets_BS[:, :-1])
    assert not batch.inputs_BS[:, 0].any()
    assert batch.weights_BS.dtype == np.float32
    assert batch.weights_BS.all()


def test_evaluation_covers_every_token_of_the_held_out_text_once():
    batches = eval_batches(SMALL)
    vocabulary = load_vocabulary("embedded")
    expected = [t for d in embedded_documents("validation") for t in [*vocabulary.encode(d), 1]]
    found = np.concatenate([b.targets_BS[b.weights_BS > 0] for b in batches])
    np.testing.assert_array_equal(found, expected)
    # The last batch is filled up with padding that does not count.
    assert all(b.targets_BS.shape == (4, 64) for b in batches)
    assert not batches[-1].targets_BS[batches[-1].weights_BS == 0].any()


def test_token_bytes_add_up_to_the_text():
    text = sum(len(d.encode("utf-8")) for d in embedded_documents("validation"))
    lengths = token_bytes(SMALL, 8192)
    assert sum(int(lengths[b.targets_BS].sum()) for b in eval_batches(SMALL)) == text


def test_every_word_of_the_text_is_trained_on_in_an_epoch():
    """Rows of the stream, put together, are whole documents."""
    batches = TrainBatches(DataConfig(sequence_length=64, batch_size=64))
    rows = np.concatenate([next(batches).targets_BS for _ in range(5)])
    vocabulary = vocabulary_of(SMALL)
    texts = [vocabulary.decode([int(t) for t in row if t > 1]) for row in rows[:20]]
    corpus = " ".join(embedded_documents("train"))
    assert all(text.strip()[5:60] in corpus for text in texts if "</s>" not in text)
    assert len({row.tobytes() for row in rows}) == len(rows)


@pytest.mark.parametrize("pack", mostly_slow([True, False]))
def test_a_restored_stream_goes_on_exactly(tmp_path, pack):
    config = DataConfig(sequence_length=64, batch_size=4, seed=1, pack=pack)
    stream = TrainBatches(config)
    for _ in range(3):
        next(stream)
    stream.save(epath.Path(tmp_path) / "position")
    expected = [next(stream).targets_BS for _ in range(5)]
    restored = TrainBatches(config)
    restored.restore(epath.Path(tmp_path) / "position")
    np.testing.assert_array_equal([next(restored).targets_BS for _ in range(5)], expected)


@pytest.mark.slow
def test_another_stream_is_refused(tmp_path):
    TrainBatches(SMALL).save(epath.Path(tmp_path) / "position")
    other = TrainBatches(DataConfig(sequence_length=64, batch_size=8, seed=3))
    with pytest.raises(UserError, match="batch_size: 4 -> 8"):
        other.restore(epath.Path(tmp_path) / "position")


@pytest.mark.slow
def test_the_order_depends_on_the_seed_only():
    first, again, other = (
        next(TrainBatches(DataConfig(sequence_length=64, batch_size=4, seed=s))).targets_BS
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_packed_rows_hold_whole_examples_apart():
    """Positions and segments of packed examples, from any task registered with seqio."""
    name = "pack_test"
    vocabulary = load_vocabulary("embedded")
    examples = ["One whale.", "Two whales and a ship.", "Call me Ishmael.", "A boat."] * 20
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
                {"targets": examples}
            ),
            splits=["train", "validation"],
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
        metric_fns=[],
    )
    (batch, *_) = eval_batches(DataConfig(task=name, sequence_length=32, batch_size=2, pack=True))
    row, segments, positions = (
        a[0] for a in (batch.targets_BS, batch.segments_BS, batch.positions_BS)
    )
    assert segments.max() > 1
    for segment in range(1, segments.max() + 1):
        inside = segments == segment
        np.testing.assert_array_equal(positions[inside], np.arange(inside.sum()))
        text = vocabulary.decode([int(t) for t in row[inside][:-1]])
        assert row[inside][-1] == 1
        assert text in examples
        assert batch.inputs_BS[0][inside][0] == 0


def test_python_in_a_users_task_is_translated():
    """`if` on a tensor is AutoGraph's to translate; the package's own tasks do without."""

    def shorten(example):
        text = example["targets"]
        if tf.strings.length(text) > 10:
            text = tf.strings.substr(text, 0, 10)
        return {"targets": text}

    name = "translate_test"
    vocabulary = load_vocabulary("embedded")
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
                {"targets": ["Call me Ishmael.", "A boat."]}
            ),
            splits=["validation"],
        ),
        preprocessors=[lambda rows: rows.map(shorten), seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(vocabulary, add_eos=False)},
        metric_fns=[],
    )
    (batch,) = eval_batches(DataConfig(task=name, sequence_length=32, batch_size=2))
    texts = [vocabulary.decode([int(t) for t in row if t > 0]) for row in batch.targets_BS]
    assert texts == ["Call me Is", "A boat."]


def test_held_out_text_of_own_files(tmp_path):
    """About one in twenty bytes is held out, and nothing is in both splits."""
    lines = [f"line {i} of the book" for i in range(2500)]
    (tmp_path / "book.txt").write_text("\n".join(lines))
    config = DataConfig(task=f"text:{tmp_path}/*.txt", sequence_length=64, batch_size=4)
    vocabulary = vocabulary_of(config)

    def texts(rows):
        return [vocabulary.decode([int(t) for t in row if t > 1]) for row in rows]

    held = "".join(texts(b.targets_BS[b.weights_BS > 0] for b in eval_batches(config)))
    held = [line for line in held.split("\n") if line in lines]
    assert len(held) == pytest.approx(125, abs=25)
    trained = "".join(texts(next(TrainBatches(config)).targets_BS))
    assert trained
    assert not any(line + "\n" in trained for line in held)


def test_a_task_without_the_split_is_named():
    config = DataConfig(sequence_length=64, batch_size=4, eval_split="tset")
    with pytest.raises(UserError, match="no split 'tset'; it has: train, validation"):
        eval_batches(config)
