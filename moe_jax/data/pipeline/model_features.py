"""Rows of tokens from a seqio task.

It imports seqio, and with it TensorFlow: import it when data are needed.
"""

import functools
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.feature_converters import (
    PackedDocumentsFeatureConverter,
    TrimmedPrefixLMFeatureConverter,
)
from moe_jax.data.tasks.registry import EXAMPLES, PROMPTED, STREAM, RegisteredTask, find_task
from moe_jax.errors import UserError


def vocabulary_of(config: DataConfig) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary that a task's targets are made of."""
    return find_task(config).provider.output_features["targets"].vocabulary


def notes_of(config: DataConfig) -> tuple[str, ...]:
    """Returns what a user should be told about the task's files, such as those left out."""
    return find_task(config).notes


def get_dataset(
    config: DataConfig, split: str, training: bool, stream: int | None = None
) -> tf.data.Dataset:
    """Returns the rows of a split, converted to a decoder's features.

    Args:
        config: the data.
        split: of the task; of a mixture, its tasks that have it.
        training: without an end, shuffled if the configuration says so, and a mixture by its
            rates; otherwise every row once in order, one task of a mixture after the other.
        stream: which of `config.shards` parts of the rows; None for all of them.

    Raises:
        UserError: if the task has no such split.
    """
    task = find_task(config)
    read = _get_dataset
    if not _needs_autograph(config, task):
        # Everything that is mapped is TensorFlow's operations: to translate it would take most of
        # the time that opening the data takes.
        read = tf.autograph.experimental.do_not_convert(read)
    return read(config, task, split, training, stream)


def _needs_autograph(config: DataConfig, task: RegisteredTask) -> bool:
    """Returns whether Python's control flow is to be translated: a user's, or seqio's packing."""
    return task.is_user_registered or (config.pack and task.kind != STREAM)


def _get_dataset(
    config: DataConfig, task: RegisteredTask, split: str, training: bool, stream: int | None
) -> tf.data.Dataset:
    provider = task.provider
    if split not in provider.splits:
        known = ", ".join(sorted(provider.splits))
        raise UserError(f"task {config.task_name!r} has no split {split!r}; it has: {known}")
    lengths = task.feature_lengths(config)
    get = functools.partial(
        seqio.get_dataset,
        task_feature_lengths=lengths,
        feature_converter=_converter(config, task, provider),
        dataset_split=split,
        use_cached=is_cached(config, task),
        shuffle=training and config.shuffle and not task.has_fixed_order,
        seed=config.seed,
        num_epochs=None if training else 1,
        shard_info=None if stream is None else seqio.ShardInfo(stream, config.shards),
        verbose=False,
    )
    if training or isinstance(provider, seqio.Task):
        return get(provider)
    # seqio would stop at the end of the task that ends first.
    parts = [get(part) for part in provider.tasks if split in part.splits]
    return functools.reduce(lambda first, second: first.concatenate(second), parts)


def is_cached(config: DataConfig, task: RegisteredTask) -> bool:
    """Returns whether the task, or every task of a mixture, is read from `config.cache_dir`.

    Raises:
        UserError: if there is a directory for caches and the task is not in it.
    """
    if config.cache_dir is None or task.has_fixed_order:
        return False
    home = str(epath.Path(config.cache_dir).expanduser())
    seqio.set_global_cache_dirs([home])
    for part in seqio.get_subtasks(task.provider):
        if part._cache_dir and not part._cache_dir.startswith(f"{home}/"):
            # seqio remembers where it found a task before.
            part._cache_dir, part._stats = None, {}
        if not part.supports_caching or not part.cache_dir:
            raise UserError(
                f"task {part.name!r} is not in Data.cache_dir = {config.cache_dir}; put it there "
                "with `moe-jax data cache`, or set Data.cache_dir to None"
            )
    return True


def _converter(
    config: DataConfig, task: RegisteredTask, provider: seqio.Task | seqio.Mixture
) -> seqio.FeatureConverter:
    if task.kind == PROMPTED:
        return TrimmedPrefixLMFeatureConverter(config.sequence_length, config.pack)
    if config.pack and task.kind != EXAMPLES:
        return PackedDocumentsFeatureConverter(
            provider.output_features["targets"].vocabulary.eos_id
        )
    return seqio.LMFeatureConverter(pack=config.pack)


def to_batch(features: dict[str, Any]) -> Batch:
    """Returns the batch of a decoder's features under seqio's names."""
    return Batch(
        inputs_BS=features["decoder_input_tokens"],
        targets_BS=features["decoder_target_tokens"],
        weights_BS=features["decoder_loss_weights"].astype(np.float32),
        positions_BS=features.get("decoder_positions"),
        segments_BS=features.get("decoder_segment_ids"),
        prefix_BS=features.get("decoder_causal_attention"),
    )
