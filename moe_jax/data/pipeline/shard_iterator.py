"""Training data as independent streams, each a fixed part of every batch.

ShardIterator i of `Data.shards` gives rows [i * B / shards, (i + 1) * B / shards) of each batch. So what
is in a batch depends on the configuration and the step alone, however many processes read it, and
the positions of the streams can be saved by one number of processes and restored by another.
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
# Where format 1 kept the only stream's position.
_FORMAT_1 = "process_0"
# What it did not write down, because there was no choice.
_NOT_IN_FORMAT_1 = {
    "shards": 1,
    "shuffle": True,
    "objective": "lm",
    "targets_length": 0,
    "cached": False,
}


def shards_of_rows(config: DataConfig, rows: tuple[int, int]) -> range:
    """Returns the streams that give rows [first, last) of a batch."""
    size = config.batch_size // config.shards
    return range(rows[0] // size, -(-rows[1] // size))


def checkpoint_writers(config: DataConfig, held: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Returns for each stream the lowest process that reads it, which saves its position.

    Args:
        config: the data.
        held: rows of the batch that each process reads.
    """
    writers: dict[int, int] = {}
    for process, rows in sorted(held.items(), reverse=True):
        writers.update(dict.fromkeys(shards_of_rows(config, rows), process))
    return writers


class ShardIterator(Iterator[dict[str, np.ndarray]]):
    """One part of the training data, without an end; its rows of each batch, by feature.

    Args:
        config: the data.
        index: which stream.
        ahead: make the first batches at once.

    Attributes:
        index: which stream.

    Raises:
        UserError: if the data are fewer than its part of one batch.
    """

    def __init__(self, config: DataConfig, index: int, ahead: bool = False):
        self.index = index
        self._config = config
        # One stream reads the task as it is, in the order it has without streams.
        self._stream = index if config.shards > 1 else None
        size = config.batch_size // config.shards
        rows = get_dataset(config, "train", training=True, stream=self._stream)
        options = tf.data.Options()
        options.experimental_warm_start = ahead
        # After a save, an iterator that is closed would wait for the thread that tunes it, which
        # sleeps up to a minute. Untuned, it works on as many elements at once as there are cores.
        options.autotune.enabled = False
        batches = rows.batch(size, drop_remainder=True).prefetch(2).with_options(options)
        self._iterator = iter(batches)
        self._check_one_batch(size)

    def __next__(self) -> dict[str, np.ndarray]:
        try:
            return {name: value.numpy() for name, value in next(self._iterator).items()}
        except tf.errors.OpError as error:
            # Such as a file that was there at the start and is gone.
            raise UserError(
                f"the data of {self._config.task_name!r} cannot be read any more: "
                f"{error.message.splitlines()[0]}"
            ) from None

    def _check_one_batch(self, size: int) -> None:
        """Refuses too few rows: the stream would be empty or one batch repeated."""
        config = self._config
        rows = get_dataset(config, "train", training=False, stream=self._stream)
        found = sum(1 for _ in itertools.islice(rows, size))
        if found < size:
            part = "" if config.shards == 1 else f" in stream {self.index} of {config.shards}"
            raise UserError(
                f"task {config.task_name!r} has {found} training rows of {config.sequence_length} "
                f"tokens{part}, fewer than one batch of {size}; use more text, a smaller "
                "Data.batch_size or a shorter Data.sequence_length"
            )

    def _fingerprint(self) -> dict[str, Any]:
        """Returns what must not change for a saved position to have a meaning."""
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
        """Writes the position to a directory of its own in `directory`."""
        own = directory / f"stream_{self.index}"
        own.mkdir(parents=True, exist_ok=True)
        tf.train.Checkpoint(iterator=self._iterator).write(str(own / "position"))
        (own / _FINGERPRINT).write_text(json.dumps(self._fingerprint(), indent=1))

    def restore(self, directory: epath.Path) -> None:
        """Goes to a saved position, or stays at the start of files that have changed as meant.

        Raises:
            UserError: if the position was saved for other data or another batch.
        """
        own = directory / f"stream_{self.index}"
        for other in ("stream_0", _FORMAT_1):
            if not own.exists():
                own = directory / other
        saved = {**_NOT_IN_FORMAT_1, **json.loads((own / _FINGERPRINT).read_text())}
        now = self._fingerprint()
        if not can_restore("data", saved, now, self._config.allow_changed_files):
            return
        checkpoint = tf.train.Checkpoint(iterator=self._iterator)
        checkpoint.read(str(own / "position")).assert_consumed()
