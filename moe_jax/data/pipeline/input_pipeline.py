"""Batches of a seqio task: an endless, checkpointable iterator to train, a fixed list to evaluate.

This module imports seqio and TensorFlow.
"""

import itertools
from collections.abc import Collection, Iterator

import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.data_shards import shards_of_rows
from moe_jax.data.pipeline.model_features import get_dataset, notes_of, to_batch, vocabulary_of
from moe_jax.data.pipeline.shard_iterator import ShardIterator
from moe_jax.data.tasks.vocabulary import bytes_of_tokens
from moe_jax.errors import UserError

__all__ = [
    "TrainBatches",
    "count_tokens",
    "eval_batches",
    "notes_of",
    "token_bytes",
    "vocabulary_of",
]


def count_tokens(config: DataConfig, batches: int) -> tuple[int, ...]:
    """Counts the occurrences of each token id in the inputs of the first training batches."""
    counts = np.zeros(vocabulary_of(config).vocab_size, np.int64)
    for batch in itertools.islice(TrainBatches(config), batches):
        real = batch.inputs_BS[np.asarray(batch.mask_BS)]
        counts += np.bincount(real.reshape(-1), minlength=len(counts))
    return tuple(counts.tolist())


class TrainBatches(Iterator[Batch]):
    """An endless iterator over training batches whose exact state can be saved and restored.

    Args:
        config: configuration of the data.
        rows: first row of the batch that this process needs, and one past the last; None for all.
        writes: data shards whose state `save` writes; None for all that are read.
        ahead: prepare the first batches in advance.

    Attributes:
        rows: first row in each batch, and one past the last.

    Raises:
        UserError: if the data are fewer than one batch.
    """

    def __init__(
        self,
        config: DataConfig,
        rows: tuple[int, int] | None = None,
        writes: Collection[int] | None = None,
        ahead: bool = False,
    ):
        self.rows = rows or (0, config.batch_size)
        self._size = config.batch_size // config.shards
        self._shards = [
            ShardIterator(config, index, ahead) for index in shards_of_rows(config, self.rows)
        ]
        self._writes = writes

    def __next__(self) -> Batch:
        parts = [next(shard) for shard in self._shards]
        first = self._shards[0].index * self._size
        wanted = slice(self.rows[0] - first, self.rows[1] - first)
        return to_batch({name: _concatenate([p[name] for p in parts])[wanted] for name in parts[0]})

    def save(self, directory: epath.Path) -> None:
        """Writes the states of the data shards that this process is responsible for."""
        for shard in self._shards:
            if self._writes is None or shard.index in self._writes:
                shard.save(directory)

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state.

        Raises:
            UserError: if it was saved for other data or another batch.
        """
        for shard in self._shards:
            shard.restore(directory)


def _concatenate(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def eval_batches(config: DataConfig) -> list[Batch]:
    """Returns the batches of the evaluation split in a fixed order, the last one padded.

    Raises:
        UserError: if the split has no rows.
    """
    rows = get_dataset(config, config.eval_split, training=False)
    batches = []
    limit = config.eval_batches or None
    for features in itertools.islice(rows.batch(config.batch_size).as_numpy_iterator(), limit):
        missing = config.batch_size - len(features["decoder_target_tokens"])
        padding = ((0, missing), (0, 0))
        batches.append(to_batch({k: np.pad(v, padding) for k, v in features.items()}))
    if not batches:
        raise UserError(
            f"task {config.task_name!r} has no text in its split {config.eval_split!r} "
            "(of a user's files about one in twenty bytes is held out, in pieces: all of a single "
            "short text, or of copies of one, is for training)"
        )
    return batches


def token_bytes(config: DataConfig, size: int) -> np.ndarray:
    """Returns the number of UTF-8 bytes of each token, [size]: see `bytes_of_tokens`."""
    return bytes_of_tokens(vocabulary_of(config), size)
