"""Language modelling, prefix language modelling and span corruption."""

import itertools

import numpy as np
import pytest
import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.model_features import get_dataset
from moe_jax.data.tasks import objectives
from moe_jax.data.tasks.objectives import span_corruption_lengths
from moe_jax.data.tasks.registry import find_task
from moe_jax.data.tasks.vocabulary import load_vocabulary
from moe_jax.errors import UserError

VOCABULARY = load_vocabulary("embedded")
SENTINELS = range(VOCABULARY.vocab_size - 1, VOCABULARY.vocab_size - 101, -1)
END = VOCABULARY.eos_id


def stream(tokens):
    """Returns documents of 37 tokens."""
    tokens = np.asarray(tokens, np.int32)
    parts = [tokens[i : i + 37] for i in range(0, len(tokens), 37)]
    return tf.data.Dataset.from_generator(
        lambda: ({"targets": part} for part in parts),
        output_signature={"targets": tf.TensorSpec([None], tf.int32)},
    )


def text_of(length, seed=0):
    return np.random.default_rng(seed).integers(3, 8000, length).astype(np.int32)


def apply(name, tokens, length, seed=0):
    """Returns the examples that an objective makes of a text."""
    lengths = {"inputs": length, "targets": length}
    with seqio.utils.map_seed_manager(seed):
        dataset = objectives.objective(name, VOCABULARY)(stream(tokens), lengths)
    return list(dataset.as_numpy_iterator())


def restored(inputs, targets):
    """Returns the text, with the spans put back in the place of their sentinels, and the spans."""
    assert inputs[-1] == END
    assert targets[-1] == END
    starts = [i for i, token in enumerate(targets) if token in SENTINELS] + [len(targets) - 1]
    assert starts[0] == 0
    spans = {int(targets[a]): list(targets[a + 1 : b]) for a, b in itertools.pairwise(starts)}
    text = []
    for token in inputs[:-1]:
        text += spans[int(token)] if token in SENTINELS else [token]
    return text, spans


@pytest.mark.parametrize("length", [6, 16, 64, 333])
def test_spans_put_back_give_the_text(length):
    size, noise, count = span_corruption_lengths(length)
    text = text_of(size * 20 + size // 2)
    examples = apply("span_corruption", text, length)
    # The last, short row is left out.
    assert len(examples) == 20
    found = []
    for example in examples:
        inputs, targets = example["inputs"], example["targets"]
        assert len(inputs) + len(targets) <= length
        tokens, spans = restored(inputs, targets)
        # The sentinels are in the same, descending order on both sides.
        expected = list(SENTINELS[:count])
        assert [t for t in inputs if t in SENTINELS] == expected
        assert list(spans) == expected
        assert sum(map(len, spans.values())) == noise
        assert min(map(len, spans.values())) >= 1
        found += tokens
    np.testing.assert_array_equal(found, text[: 20 * size])


def test_spans_lie_anywhere():
    """First kept and first masked lengths take every value, short ones most often."""
    length = 64
    size, noise, count = span_corruption_lengths(length)
    examples = apply("span_corruption", text_of(size * 600), length)
    kept = np.array([list(np.isin(e["inputs"], SENTINELS)).index(True) for e in examples])
    masked = np.array([len(next(iter(restored(**e)[1].values()))) for e in examples])
    # Of n in k parts the first has the mean n / k, by symmetry.
    for found, mean in ((kept, (size - noise) / count), (masked, noise / count)):
        assert abs(found.mean() - mean) < 4 * found.std() / np.sqrt(len(found))
        assert found.std() > 0.3 * mean
    # Neither decides the other: they are drawn independently.
    assert abs(np.corrcoef(kept, masked)[0, 1]) < 4 / np.sqrt(len(kept))


def total(text):
    """Returns a row's tokens, masked tokens and spans: 15% masked, in spans of 3 (T5)."""
    noise = min(max(int(np.round(text * 0.15)), 1), text - 1)
    spans = min(max(int(np.round(noise / 3)), 1), text - noise)
    return text + 2 * spans + 2, noise, spans


def test_rows_are_as_full_as_they_can_be():
    """The longest text that fits, found by trying all; at most 4 tokens of a row are not used."""
    for length in range(6, 700):
        text, noise, spans = span_corruption_lengths(length)
        best = max(n for n in range(2, length) if total(n)[0] <= length)
        assert (text, noise, spans) == (best, *total(best)[1:])
        assert length - 4 <= text + 2 * spans + 2 <= length
        if text > 6:
            assert abs(noise - 0.15 * text) <= 0.5
        if noise > 3:
            assert abs(spans - noise / 3) <= 0.5


@pytest.mark.parametrize("length", [1, 4, 5])
def test_rows_too_short_for_a_span_are_refused(length):
    with pytest.raises(UserError, match=f"rows of {length} tokens are too short"):
        span_corruption_lengths(length)


def test_more_spans_than_sentinels_are_refused():
    length = next(n for n in itertools.count(2000) if span_corruption_lengths(n)[2] > 100)
    with pytest.raises(UserError, match="needs 101 sentinels, and the vocabulary has 100"):
        apply("span_corruption", text_of(10), length)
    assert len(apply("span_corruption", text_of(2 * length), length - 1)) == 2


@pytest.mark.parametrize("name", ["prefix_lm", "span_corruption"])
@pytest.mark.parametrize("lengths", [None, {}, {"targets": 8}])
def test_objectives_need_the_length_of_a_row(name, lengths):
    with pytest.raises(UserError, match="needs the length of a row"):
        objectives.objective(name, VOCABULARY)(stream([3, 4]), lengths)


def test_an_unknown_objective_is_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'prefixlm'.*Did you mean 'prefix_lm'"):
        DataConfig(objective="prefixlm")


def test_language_model_rows_are_the_stream():
    text = text_of(1000)
    rows = [e["targets"] for e in apply("lm", text, 64)]
    assert [len(row) for row in rows] == [64] * 15 + [40]
    np.testing.assert_array_equal(np.concatenate(rows), text)


def test_prefix_and_target_are_the_rows_of_the_stream():
    text = text_of(64 * 50 + 9)
    examples = apply("prefix_lm", text, 64)
    rows = [e["targets"] for e in apply("lm", text, 64)]
    assert len(examples) == len(rows)
    for example, row in zip(examples, rows, strict=True):
        assert len(example["inputs"]) >= 1
        assert len(example["targets"]) >= 1
        np.testing.assert_array_equal([*example["inputs"], *example["targets"]], row)


def test_a_rest_of_one_token_has_nothing_to_predict():
    examples = apply("prefix_lm", text_of(65), 64)
    assert all(len(e["inputs"]) and len(e["targets"]) for e in examples)
    assert len(examples) == 1


def test_the_cut_is_uniform():
    examples = apply("prefix_lm", text_of(5 * 2000), 5)
    places = np.bincount([len(e["inputs"]) for e in examples], minlength=6)
    assert places[0] == places[5] == 0
    error = np.sqrt(2000 * 0.25 * 0.75)
    assert np.all(np.abs(places[1:5] - 500) < 4 * error)


def only(text):
    """Returns a source of one document."""

    def source(split, shuffle_files, seed=None):
        return tf.data.Dataset.from_tensors({"targets": text})

    return source


@pytest.fixture(scope="module")
def configs():
    """Returns two tasks with exactly four rows of one text in an epoch, not shuffled."""
    length, made = 64, {}
    for name, size in (
        ("prefix_lm", length),
        ("span_corruption", span_corruption_lengths(length)[0]),
    ):
        text = text_of(4 * size, seed=5)
        feature = seqio.Feature(VOCABULARY, add_eos=False)
        seqio.TaskRegistry.add(
            f"epochs_of_{name}",
            source=seqio.FunctionDataSource(only(text), splits=["train"]),
            preprocessors=[objectives.objective(name, VOCABULARY)],
            output_features={"inputs": feature, "targets": feature},
            metric_fns=[],
        )
        made[name] = DataConfig(
            task=f"epochs_of_{name}", sequence_length=length, batch_size=2, shuffle=False
        )
    return made


@pytest.mark.parametrize("name", ["prefix_lm", "span_corruption"])
def test_draws_differ_between_epochs_and_not_between_runs(configs, name):
    def rows(seed):
        config = DataConfig(**{**vars(configs[name]), "seed": seed})
        assert find_task(config).kind == "prompted"
        dataset = get_dataset(config, "train", training=True)
        return [r["decoder_loss_weights"] for r in dataset.take(12).as_numpy_iterator()], [
            r["decoder_target_tokens"] for r in dataset.take(12).as_numpy_iterator()
        ]

    (weights, targets), (again, targets_again), (other, other_targets) = rows(0), rows(0), rows(1)
    np.testing.assert_array_equal(weights, again)
    np.testing.assert_array_equal(targets, targets_again)
    found = np.array(targets if name == "span_corruption" else weights).reshape(3, 4, 64)
    changed = np.array(other_targets if name == "span_corruption" else other).reshape(3, 4, 64)
    assert (found[0] != found[1]).any()
    assert (found[1] != found[2]).any()
    assert (found != changed).any()
