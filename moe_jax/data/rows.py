"""Rows of tokens from a seqio task.

This is the module that imports seqio, and with it TensorFlow: import it when data are needed.
"""

from typing import Any

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.tasks import get_task
from moe_jax.errors import UserError


def vocabulary_of(config: DataConfig) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary that a task's targets are made of."""
    return _task(config).output_features["targets"].vocabulary


def _task(config: DataConfig) -> seqio.Task | seqio.Mixture:
    name = get_task(config.task, config.vocabulary, config.tfds_data_dir)
    return seqio.get_mixture_or_task(name)


def rows_of(
    config: DataConfig, split: str, training: bool, stream: int | None = None
) -> tf.data.Dataset:
    """Returns the rows of a split, converted to a decoder's features.

    Args:
        config: the data.
        split: of the task.
        training: shuffled and without an end, rather than once in order.
        stream: which of `config.shards` parts of the rows; None for all of them.

    Raises:
        UserError: if the task has no such split.
    """
    task = _task(config)
    if split not in task.splits:
        raise UserError(
            f"task {config.task!r} has no split {split!r}; it has: {', '.join(sorted(task.splits))}"
        )
    return seqio.get_dataset(
        task.name,
        {"targets": config.sequence_length},
        feature_converter=seqio.LMFeatureConverter(pack=config.pack),
        dataset_split=split,
        shuffle=training,
        seed=config.seed,
        num_epochs=None if training else 1,
        shard_info=None if stream is None else seqio.ShardInfo(stream, config.shards),
    )


def to_batch(features: dict[str, Any]) -> Batch:
    """Returns the batch of a decoder's features under seqio's names."""
    return Batch(
        inputs_BS=features["decoder_input_tokens"],
        targets_BS=features["decoder_target_tokens"],
        weights_BS=features["decoder_loss_weights"].astype(np.float32),
        positions_BS=features.get("decoder_positions"),
        segments_BS=features.get("decoder_segment_ids"),
    )
