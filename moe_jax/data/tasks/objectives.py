"""Pre-training objectives: language modelling, prefix language modelling, span corruption.

All are seqio preprocessors: they take data sets of {"targets": tokens} and the sequence length of
each feature.
"""

from collections.abc import Callable, Mapping

import seqio
import tensorflow as tf

from moe_jax.data.span_corruption import span_corruption_lengths
from moe_jax.errors import UserError

Lengths = Mapping[str, int] | None
Preprocessor = Callable[..., tf.data.Dataset]
Example = dict[str, tf.Tensor]


def keep_text(dataset: tf.data.Dataset, field: str) -> tf.data.Dataset:
    """Keeps only the text of a field, as `targets`; bytes that are not UTF-8 become U+FFFD."""

    def keep(example: Example) -> Example:
        text = tf.strings.unicode_transcode(example[field], "UTF-8", "UTF-8", errors="replace")
        return {"targets": text}

    return dataset.map(keep, num_parallel_calls=tf.data.AUTOTUNE)


def concatenate_and_split(dataset: tf.data.Dataset, length: int) -> tf.data.Dataset:
    """Concatenates tokenised documents and splits them into sequences of full length.

    Every token is used once, only the last sequence may be short, and none is padded: the usual
    input of pre-training. Documents end with the end-of-sequence token.

    Args:
        dataset: examples {"targets": int tokens [length of the document]}.
        length: tokens in a sequence.
    """
    tokens = dataset.map(lambda example: example["targets"], num_parallel_calls=tf.data.AUTOTUNE)
    rows = tokens.rebatch(length)
    return rows.map(lambda row: {"targets": row}, num_parallel_calls=tf.data.AUTOTUNE)


def objective(name: str, vocabulary: seqio.SentencePieceVocabulary) -> Preprocessor:
    """Returns the preprocessor from tokenised documents to training examples.

    Args:
        name: `lm`, `prefix_lm` or `span_corruption`.
        vocabulary: with the sentinels for span corruption at its end.
    """
    if name == "lm":
        return language_model
    if name == "prefix_lm":
        return prefix_language_model

    def corrupt(dataset: tf.data.Dataset, sequence_length: Lengths = None) -> tf.data.Dataset:
        return span_corruption(dataset, sequence_length, vocabulary)

    return corrupt


def language_model(dataset: tf.data.Dataset, sequence_length: Lengths = None) -> tf.data.Dataset:
    """Splits the stream into sequences whose every token is predicted."""
    length = (sequence_length or {}).get("targets")
    return dataset if length is None else concatenate_and_split(dataset, length)


def prefix_language_model(
    dataset: tf.data.Dataset, sequence_length: Lengths = None
) -> tf.data.Dataset:
    """Splits sequences at a random position into `inputs` and `targets`.

    The position is uniform over those that leave a token on either side. A text's last sequence
    is dropped if it is a single token.
    Source: Raffel et al. 2020, section 3.2.3.
    """
    length = _row_length(sequence_length)

    @seqio.map_over_dataset(num_seeds=1)
    def split(example: Example, seed: tf.Tensor) -> Example:
        tokens = example["targets"]
        size = tf.size(tokens)
        place = tf.random.stateless_uniform([], seed, minval=1, maxval=size, dtype=tf.int32)
        return {"inputs": tokens[:place], "targets": tokens[place:]}

    rows = concatenate_and_split(dataset, length)
    return split(rows.filter(lambda example: tf.size(example["targets"]) > 1))


def span_corruption(
    dataset: tf.data.Dataset,
    sequence_length: Lengths,
    vocabulary: seqio.SentencePieceVocabulary,
) -> tf.data.Dataset:
    """Masks spans of a text and predicts them: T5's pre-training, in one sequence of a decoder.

    `inputs` are the text with each masked span replaced by a sentinel, `targets` the sentinels
    each followed by its span; both end with the end-of-sequence token. The text has the length
    that fills the sequence. Source: Raffel et al. 2020, section 3.1.4.

    Raises:
        UserError: if sequences are too short for a span, or need more sentinels than there are.
    """
    length = _row_length(sequence_length)
    text, noise, spans = span_corruption_lengths(length)
    if spans > vocabulary.extra_ids:
        raise UserError(
            f"span corruption of rows of {length} tokens needs {spans} sentinels, and the "
            f"vocabulary has {vocabulary.extra_ids}: use a shorter Data.sequence_length"
        )
    sentinels = vocabulary.vocab_size - 1 - tf.range(spans)
    end = tf.constant([vocabulary.eos_id], tf.int32)

    @seqio.map_over_dataset(num_seeds=2)
    def corrupt(example: Example, seeds: tf.Tensor) -> Example:
        tokens = example["targets"]
        kept = _random_lengths(text - noise, spans, seeds[0])
        masked = _random_lengths(noise, spans, seeds[1])
        # Kept and masked spans alternate; the text ends with a masked one.
        both = tf.reshape(tf.stack([kept, masked], axis=1), [-1])
        pieces = tf.RaggedTensor.from_row_lengths(tokens, both)
        marks = tf.RaggedTensor.from_row_lengths(sentinels, tf.ones_like(kept))
        inputs = tf.concat([pieces[0::2], marks], axis=1).flat_values
        targets = tf.concat([marks, pieces[1::2]], axis=1).flat_values
        return {
            "inputs": tf.concat([inputs, end], axis=0),
            "targets": tf.concat([targets, end], axis=0),
        }

    rows = concatenate_and_split(dataset, text)
    whole = rows.filter(lambda example: tf.equal(tf.size(example["targets"]), text))
    return corrupt(whole)


def _random_lengths(total: int, parts: int, seed: tf.Tensor) -> tf.Tensor:
    """Splits `total` into `parts` random lengths above 0, uniformly over all such splits."""
    places = tf.random.experimental.stateless_shuffle(tf.range(1, total), seed)[: parts - 1]
    bounds = tf.concat([[0], tf.sort(places), [total]], axis=0)
    return bounds[1:] - bounds[:-1]


def _row_length(sequence_length: Lengths) -> int:
    if not sequence_length or "inputs" not in sequence_length:
        raise UserError("this objective needs the length of a row")
    return sequence_length["inputs"]
