"""Training data as independent data shards, each a fixed part of every batch.

Shard i of `Data.shards` has rows [i * B / shards, (i + 1) * B / shards) of each batch. So a batch
depends on the configuration and the step only, however many processes read it, and the states of
the shards can be saved by one number of processes and restored by another.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.iterator_checkpoint import (
    ShardPosition,
    can_restore,
    data_fingerprint,
    position_fingerprint,
    read_position,
    vocabulary_digest,
)
from moe_jax.data.pipeline.model_features import get_dataset, vocabulary_of
from moe_jax.errors import UserError

_POSITION = "position"


class ShardIterator(Iterator[dict[str, np.ndarray]]):
    """An endless iterator over a data shard: its rows of each batch, by feature.

    Args:
        config: configuration of the data.
        index: index of the shard.
        ahead: prepare the first batches in advance.

    Attributes:
        index: index of the shard.

    Raises:
        UserError: if the data are fewer than its part of one batch.
    """

    def __init__(self, config: DataConfig, index: int, ahead: bool = False):
        self.index = index
        self._config, self._ahead = config, ahead
        # A single shard reads the task in the order without sharding.
        self._shard = index if config.shards > 1 else None
        self._size = config.batch_size // config.shards
        self._start()
        self._check_one_batch()

    def _start(self) -> None:
        """Opens the pipeline at its beginning."""
        # Another iterator over the same `Dataset` would be another epoch of the shuffles.
        rows = get_dataset(self._config, "train", training=True, shard=self._shard)
        options = tf.data.Options()
        options.experimental_warm_start = self._ahead
        # After a save, closing the iterator would wait for its autotuning thread, which sleeps up
        # to a minute. Without autotuning it processes as many elements in parallel as cores.
        options.autotune.enabled = False
        batches = rows.batch(self._size, drop_remainder=True).prefetch(2).with_options(options)
        self._iterator = iter(batches)
        # None after a state of an earlier version, which did not count them.
        self._batches: int | None = 0

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            features = {name: value.numpy() for name, value in next(self._iterator).items()}
        except tf.errors.OpError as error:
            # Such as a file that was deleted after the start.
            raise UserError(
                f"the data of {self._config.task_name!r} cannot be read any more: "
                f"{error.message.splitlines()[0]}"
            ) from None
        if self._batches is not None:
            self._batches += 1
        return features

    def _check_one_batch(self) -> None:
        """Refuses too few rows: the shard would be empty, or repeat one batch."""
        config, size = self._config, self._size
        rows = get_dataset(config, "train", training=False, shard=self._shard)
        found = sum(1 for _ in itertools.islice(rows, size))
        if found < size:
            part = "" if config.shards == 1 else f" in stream {self.index} of {config.shards}"
            raise UserError(
                f"task {config.task_name!r} has {found} training rows of {config.sequence_length} "
                f"tokens{part}, fewer than one batch of {size}; use more text, a smaller "
                "Data.batch_size or a shorter Data.sequence_length"
            )

    def _fingerprint(self) -> dict[str, Any]:
        vocabulary = vocabulary_digest(vocabulary_of(self._config).sp_model)
        return position_fingerprint(self._config, data_fingerprint(self._config), vocabulary)

    def save(self, directory: epath.Path) -> None:
        """Writes the iterator state to a directory of the shard in `directory`."""
        position = ShardPosition(self._fingerprint(), self._batches)
        shard_directory = position.write(directory, self.index)
        tf.train.Checkpoint(iterator=self._iterator).write(str(shard_directory / _POSITION))

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state, or starts at the beginning of changed files.

        Of a state that `RowBatches` saved, the batches before it are read and dropped.

        Raises:
            UserError: if the state was saved for other data or another batch.
        """
        shard_directory, saved = read_position(directory, self.index)
        now = self._fingerprint()
        if not can_restore("data", saved.fingerprint, now, self._config.allow_changed_files):
            return
        if saved.is_of_rows:
            self._start()
            for _ in range(saved.batches or 0):
                next(self)
            return
        checkpoint = tf.train.Checkpoint(iterator=self._iterator)
        checkpoint.read(str(shard_directory / _POSITION)).assert_consumed()
        self._batches = saved.batches
