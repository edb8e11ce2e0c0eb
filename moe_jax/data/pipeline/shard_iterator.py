"""Training data as independent data shards, each a fixed part of every batch.

Shard i of `Data.shards` has rows [i * B / shards, (i + 1) * B / shards) of each batch. So a batch
depends on the configuration and the step only, however many processes read it, and the states of
the shards can be saved by one number of processes and restored by another.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.iterator_checkpoint import can_restore, data_fingerprint
from moe_jax.data.pipeline.model_features import get_dataset, vocabulary_of
from moe_jax.errors import UserError

_FINGERPRINT = "fingerprint.json"
# Directory of the only shard's state in format 1.
_FORMAT_1 = "process_0"
# Values of the fingerprint that format 1 does not contain.
_NOT_IN_FORMAT_1 = {
    "shards": 1,
    "shuffle": True,
    "objective": "lm",
    "targets_length": 0,
    "cached": False,
}


def shards_of_rows(config: DataConfig, rows: tuple[int, int]) -> range:
    """Returns the shards that contain rows [first, last) of a batch."""
    size = config.batch_size // config.shards
    return range(rows[0] // size, -(-rows[1] // size))


def checkpoint_writers(
    config: DataConfig, rows_of_process: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Returns for each shard the lowest process that reads it, which saves its state.

    Args:
        config: configuration of the data.
        rows_of_process: rows of the batch that each process reads.
    """
    writers: dict[int, int] = {}
    for process, rows in sorted(rows_of_process.items(), reverse=True):
        writers.update(dict.fromkeys(shards_of_rows(config, rows), process))
    return writers


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
        self._config = config
        # A single shard reads the task in the order without sharding.
        self._shard = index if config.shards > 1 else None
        size = config.batch_size // config.shards
        rows = get_dataset(config, "train", training=True, shard=self._shard)
        options = tf.data.Options()
        options.experimental_warm_start = ahead
        # After a save, closing the iterator would wait for its autotuning thread, which sleeps up
        # to a minute. Without autotuning it processes as many elements in parallel as cores.
        options.autotune.enabled = False
        batches = rows.batch(size, drop_remainder=True).prefetch(2).with_options(options)
        self._iterator = iter(batches)
        self._check_one_batch(size)

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            return {name: value.numpy() for name, value in next(self._iterator).items()}
        except tf.errors.OpError as error:
            # Such as a file that was deleted after the start.
            raise UserError(
                f"the data of {self._config.task_name!r} cannot be read any more: "
                f"{error.message.splitlines()[0]}"
            ) from None

    def _check_one_batch(self, size: int) -> None:
        """Refuses too few rows: the shard would be empty, or repeat one batch."""
        config = self._config
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
        """Returns the values that a saved state depends on."""
        config = self._config
        vocabulary = vocabulary_of(config)
        return {
            **data_fingerprint(config),
            "sequence_length": config.sequence_length,
            "batch_size": config.batch_size,
            "shards": config.shards,
            "seed": config.seed,
            "pack": config.pack,
            "shuffle": config.shuffle,
            "objective": config.objective,
            "targets_length": config.targets_length,
            "cached": config.cache_dir is not None,
            "vocabulary": hashlib.sha256(vocabulary.sp_model).hexdigest()[:16],
        }

    def save(self, directory: epath.Path) -> None:
        """Writes the iterator state to a directory of the shard in `directory`."""
        shard_directory = directory / f"stream_{self.index}"
        shard_directory.mkdir(parents=True, exist_ok=True)
        tf.train.Checkpoint(iterator=self._iterator).write(str(shard_directory / "position"))
        (shard_directory / _FINGERPRINT).write_text(json.dumps(self._fingerprint(), indent=1))

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state, or starts at the beginning of changed files.

        Raises:
            UserError: if the state was saved for other data or another batch.
        """
        shard_directory = directory / f"stream_{self.index}"
        for other in ("stream_0", _FORMAT_1):
            if not shard_directory.exists():
                shard_directory = directory / other
        saved = {**_NOT_IN_FORMAT_1, **json.loads((shard_directory / _FINGERPRINT).read_text())}
        now = self._fingerprint()
        if not can_restore("data", saved, now, self._config.allow_changed_files):
            return
        checkpoint = tf.train.Checkpoint(iterator=self._iterator)
        checkpoint.read(str(shard_directory / "position")).assert_consumed()
