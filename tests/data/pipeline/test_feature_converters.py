"""Feature converters: shifted inputs, weights, segments, positions, prefixes, truncation."""

import numpy as np
import pytest
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.feature_converters import TrimmedPrefixLMFeatureConverter
from moe_jax.data.pipeline.packing import PackedDocumentsFeatureConverter
from moe_jax.data.tasks.registry import PROMPTED, RegisteredTask

LENGTH = 24
END = 1


def prompted(count, longest_inputs, longest_targets, seed=0):
    """Returns examples of random lengths; both sides end with the end of sequence."""
    random = np.random.default_rng(seed)

    def tokens(longest):
        size = random.integers(1, longest + 1)
        return np.append(random.integers(2, 500, size - 1), END).astype(np.int32)

    return [
        {"inputs": tokens(longest_inputs), "targets": tokens(longest_targets)} for _ in range(count)
    ]


def convert(converter, examples, lengths):
    signature = {name: tf.TensorSpec([None], tf.int32) for name in examples[0]}
    dataset = tf.data.Dataset.from_generator(lambda: iter(examples), output_signature=signature)
    return list(converter(dataset, lengths).as_numpy_iterator())


def expected_example(example):
    """Returns an example's columns in a row, as lists: written from the definition."""
    inputs, targets = list(example["inputs"]), list(example["targets"])
    room = LENGTH - len(targets)
    if len(inputs) > room:
        # Whole target; of the inputs the beginning and the last token.
        inputs = inputs[: room - 1] + inputs[-1:]
    tokens = inputs + targets
    size = len(tokens)
    return {
        "decoder_target_tokens": tokens,
        "decoder_input_tokens": [0, *tokens[:-1]],
        "decoder_loss_weights": [0] * len(inputs) + [1] * len(targets),
        # The first target is predicted from the whole prefix: the input there is a part of it.
        "decoder_causal_attention": ([1] * (len(inputs) + 1) + [0] * size)[:size],
        "decoder_positions": list(range(size)),
    }


@pytest.mark.parametrize("longest", [(10, 12), (LENGTH, 12), (LENGTH, LENGTH - 1)])
def test_one_example_in_a_row(longest):
    examples = prompted(60, *longest)
    lengths = {"inputs": LENGTH, "targets": LENGTH - 1}
    rows = convert(TrimmedPrefixLMFeatureConverter(LENGTH, pack=False), examples, lengths)
    assert len(rows) == len(examples)
    assert set(rows[0]) == set(expected_example(examples[0])) - {"decoder_positions"}
    for row, example in zip(rows, examples, strict=True):
        for name, values in expected_example(example).items():
            if name in row:
                # Past the end the inputs do not matter: nothing attends to padding.
                shown = row[name][: len(values)] if name == "decoder_input_tokens" else row[name]
                padded = values + [0] * (len(shown) - len(values))
                np.testing.assert_array_equal(shown, padded, err_msg=name)


@pytest.mark.parametrize("longest", [(6, 4), (LENGTH, 12)])
def test_packed_examples_follow_one_another(longest):
    """Row after row holds the same examples; a row is left when the next is too long for it."""
    examples = prompted(80, *longest, seed=1)
    lengths = {"inputs": LENGTH, "targets": LENGTH - 1}
    rows = convert(TrimmedPrefixLMFeatureConverter(LENGTH, pack=True), examples, lengths)
    expected = [expected_example(example) for example in examples]
    place = 0
    for row in rows:
        segments = row["decoder_segment_ids"]
        count, used = segments.max(), 0
        for segment in range(1, count + 1):
            size = len(expected[place]["decoder_target_tokens"])
            where = slice(used, used + size)
            np.testing.assert_array_equal(segments[where], segment)
            for name, values in expected[place].items():
                np.testing.assert_array_equal(row[name][where], values, err_msg=name)
            used, place = used + size, place + 1
        assert not any(row[name][used:].any() for name in row)
        # seqio packs so many examples at a time.
        if place < len(expected) and place % LENGTH:
            assert used + len(expected[place]["decoder_target_tokens"]) > LENGTH
    assert place == len(expected)
    assert len(rows) < len(examples)
    if longest == (6, 4):
        assert max(row["decoder_segment_ids"].max() for row in rows) >= 3


def test_a_target_of_the_whole_row_stays_as_whole_as_it_can():
    """One token of the inputs and the row's other tokens of the target."""
    task = RegisteredTask("any", PROMPTED)
    config = DataConfig(sequence_length=LENGTH)
    most = task.feature_lengths(config)["targets"]
    assert most == LENGTH - 1
    targets = np.append(np.full(LENGTH * 2, 7), END).astype(np.int32)[-most:]
    example = {"inputs": np.array([5, 6, 8, END], np.int32), "targets": targets}
    (row,) = convert(
        TrimmedPrefixLMFeatureConverter(LENGTH, False),
        [example],
        {"inputs": LENGTH, "targets": most},
    )
    np.testing.assert_array_equal(row["decoder_target_tokens"], [END, *targets])
    np.testing.assert_array_equal(row["decoder_loss_weights"], [0] + [1] * most)


def test_a_target_longer_than_the_row_keeps_one_token_of_the_inputs():
    example = {"inputs": np.array([5, 6, END]), "targets": np.arange(10, 10 + LENGTH)}
    example = {name: value.astype(np.int32) for name, value in example.items()}
    (row,) = convert(
        TrimmedPrefixLMFeatureConverter(LENGTH, False),
        [example],
        {"inputs": LENGTH, "targets": LENGTH},
    )
    np.testing.assert_array_equal(row["decoder_target_tokens"][1:], example["targets"][:-1])
    assert row["decoder_target_tokens"][0] == END
    np.testing.assert_array_equal(row["decoder_loss_weights"], [0] + [1] * (LENGTH - 1))


@pytest.mark.parametrize(
    ("own", "configured", "expected"), [(0, 0, 23), (7, 0, 7), (7, 9, 9), (99, 0, 23)]
)
def test_the_room_of_a_target(own, configured, expected):
    """Its own limit or the configuration's, and never the last place, which is the inputs'."""
    config = DataConfig(sequence_length=LENGTH, targets_length=configured)
    lengths = RegisteredTask("any", PROMPTED, own).feature_lengths(config)
    assert lengths == {"inputs": LENGTH, "targets": expected}
    assert RegisteredTask("any", "stream").feature_lengths(config) == {"targets": LENGTH}


def test_documents_in_a_row_are_kept_apart():
    random = np.random.default_rng(2)
    rows = [np.where(random.random(n) < 0.25, END, random.integers(2, 90, n)) for n in [16] * 30]
    rows += [np.array([END] * 16), np.array([5] * 16), np.array([5, END, 6])]
    rows += [np.array([END, 4, 4, END]), np.array([9])]
    examples = [{"targets": row.astype(np.int32)} for row in rows]
    for row, tokens in zip(
        convert(PackedDocumentsFeatureConverter(END), examples, {"targets": 16}), rows, strict=True
    ):
        expected = {
            name: [0] * 16
            for name in (
                "decoder_target_tokens",
                "decoder_input_tokens",
                "decoder_loss_weights",
                "decoder_segment_ids",
                "decoder_positions",
            )
        }
        document, position, before = 1, 0, 0
        for i, token in enumerate(tokens):
            expected["decoder_target_tokens"][i] = token
            expected["decoder_input_tokens"][i] = before
            expected["decoder_loss_weights"][i] = 1
            expected["decoder_segment_ids"][i] = document
            expected["decoder_positions"][i] = position
            document, position, before = (
                (document + 1, 0, 0) if token == END else (document, position + 1, token)
            )
        assert row.keys() == expected.keys()
        for name, values in expected.items():
            # Past the end the inputs do not matter: nothing attends to padding.
            real = slice(0, len(tokens)) if name == "decoder_input_tokens" else slice(None)
            np.testing.assert_array_equal(row[name][real], values[real], err_msg=name)
