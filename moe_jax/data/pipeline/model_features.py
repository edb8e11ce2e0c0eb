"""Model features of a seqio task, as a `tf.data.Dataset`.

This module imports seqio and TensorFlow.
"""

import functools
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.feature_converters import TrimmedPrefixLMFeatureConverter
from moe_jax.data.pipeline.packing import PackedDocumentsFeatureConverter
from moe_jax.data.tasks.registry import EXAMPLES, PROMPTED, STREAM, RegisteredTask, find_task
from moe_jax.errors import UserError


def vocabulary_of(config: DataConfig) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary of a task's targets."""
    return find_task(config).provider.output_features["targets"].vocabulary


def notes_of(config: DataConfig) -> tuple[str, ...]:
    """Returns the notes for the user about the task's files, such as skipped ones."""
    return find_task(config).notes


def get_dataset(
    config: DataConfig, split: str, training: bool, shard: int | None = None
) -> tf.data.Dataset:
    """Returns the sequences of a split, converted to a decoder's features.

    Args:
        config: configuration of the data.
        split: split of the task; of a mixture, of its tasks that have it.
        training: repeat without end, shuffle as configured, and sample a mixture by its rates;
            otherwise every sequence once in order, one task of a mixture after the other.
        shard: index of the data shard, below `config.shards`; None for all data.

    Raises:
        UserError: if the task has no such split.
    """
    task = find_task(config)
    read = _get_dataset
    if not _needs_autograph(config, task):
        # All mapped functions are TensorFlow operations: converting them would take most of the
        # time to open the data.
        read = tf.autograph.experimental.do_not_convert(read)
    return read(config, task, split, training, shard)


def _needs_autograph(config: DataConfig, task: RegisteredTask) -> bool:
    """Returns whether AutoGraph has to convert functions: a user's, or seqio's packing."""
    return task.is_user_registered or (config.pack and task.kind != STREAM)


def _get_dataset(
    config: DataConfig, task: RegisteredTask, split: str, training: bool, shard: int | None
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
        shard_info=None if shard is None else seqio.ShardInfo(shard, config.shards),
        verbose=False,
    )
    if training or isinstance(provider, seqio.Task):
        return get(provider)
    # seqio would stop at the end of the shortest task.
    parts = [get(part) for part in provider.tasks if split in part.splits]
    return functools.reduce(lambda first, second: first.concatenate(second), parts)


def is_cached(config: DataConfig, task: RegisteredTask) -> bool:
    """Returns whether the task, or every task of a mixture, is read from `config.cache_dir`.

    Raises:
        UserError: if there is a cache directory without the task.
    """
    if config.cache_dir is None or task.has_fixed_order:
        return False
    home = str(epath.Path(config.cache_dir).expanduser())
    seqio.set_global_cache_dirs([home])
    for part in seqio.get_subtasks(task.provider):
        if part._cache_dir and not part._cache_dir.startswith(f"{home}/"):
            # seqio keeps the directory where it found a task before.
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
    """Converts a decoder's features under seqio's names to a batch."""
    return Batch(
        inputs_BS=features["decoder_input_tokens"],
        targets_BS=features["decoder_target_tokens"],
        weights_BS=features["decoder_loss_weights"].astype(np.float32),
        positions_BS=features.get("decoder_positions"),
        segments_BS=features.get("decoder_segment_ids"),
        prefix_BS=features.get("decoder_causal_attention"),
    )
