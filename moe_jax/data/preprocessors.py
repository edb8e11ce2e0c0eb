"""Preprocessors of seqio tasks."""

import tensorflow as tf


def keep_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Keeps the text only, from a field `targets` or else `text`, as `targets`."""
    field = "targets" if "targets" in dataset.element_spec else "text"
    return dataset.map(
        lambda example: {"targets": example[field]}, num_parallel_calls=tf.data.AUTOTUNE
    )


def concatenate_and_split(
    dataset: tf.data.Dataset, sequence_length: dict[str, int] | None
) -> tf.data.Dataset:
    """Joins tokenised documents into one stream and cuts it into rows of full length.

    Every token is used once, no row but the last is short, and no row is padded: the usual way
    to feed pre-training. Documents end with the end-of-sequence token.

    Args:
        dataset: examples {"targets": int tokens [length of the document]}.
        sequence_length: {"targets": length of a row}; None leaves the documents as they are.
    """
    if not sequence_length or sequence_length.get("targets") is None:
        return dataset
    tokens = dataset.map(lambda example: example["targets"], num_parallel_calls=tf.data.AUTOTUNE)
    rows = tokens.rebatch(sequence_length["targets"])
    return rows.map(lambda row: {"targets": row}, num_parallel_calls=tf.data.AUTOTUNE)
