"""Batches of cached rows: bitwise those of the seqio pipeline, without TensorFlow."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.data_shards import shards_of_rows
from moe_jax.data.pipeline.iterator_checkpoint import (
    ShardPosition,
    can_restore,
    position_fingerprint,
    read_position,
)
from moe_jax.data.pipeline.row_directory import RowDirectory
from moe_jax.errors import UserError


class RowBatches(Iterator[Batch]):
    """An iterator over the training batches of cached rows; its position can be saved and restored.

    Positions that the seqio pipeline saved can be restored, too, and the other way round.

    Args:
        config: configuration of the data.
        directory: the cached rows.
        rows: first row of the batch that this process needs, and one past the last; None for all.
        writes: data shards whose position `save` writes; None for all that are read.

    Attributes:
        rows: first row in each batch, and one past the last.

    Raises:
        UserError: if there are no rows for the configuration's seed, or files are damaged.
    """

    def __init__(
        self,
        config: DataConfig,
        directory: RowDirectory,
        rows: tuple[int, int] | None = None,
        writes: Collection[int] | None = None,
    ):
        self.rows = rows or (0, config.batch_size)
        self._config, self._directory, self._writes = config, directory, writes
        self._size = config.batch_size // config.shards
        self._shards = shards_of_rows(config, self.rows)
        self._order = directory.order(config)
        self._columns = directory.columns("train")
        self._batches = 0

    def __next__(self) -> Batch:
        first = self._batches * self._size
        if first + self._size > self._order.shape[1]:
            self._directory.check_steps(self._config, self._batches + 1)
        shards = slice(self._shards.start, self._shards.stop)
        index = np.array(self._order[shards, first : first + self._size]).reshape(-1)
        first_row = self._shards.start * self._size
        index = index[self.rows[0] - first_row : self.rows[1] - first_row]
        if index.min() < 0:
            raise UserError(f"{self._directory.path} is damaged: an order has rows below 0")
        batch = self._directory.batch(self._columns, index)
        self._batches += 1
        return batch

    def save(self, directory: epath.Path) -> None:
        """Writes the position of the data shards that this process is responsible for."""
        position = ShardPosition(self._fingerprint(), self._batches, is_of_rows=True)
        for shard in self._shards:
            if self._writes is None or shard in self._writes:
                position.write(directory, shard)

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved position.

        Raises:
            UserError: if it was saved for other data or another batch, or by a version that did
                not count batches.
        """
        config = self._config
        _, saved = read_position(directory, self._shards.start)
        self._batches = 0
        if not can_restore(
            "data", saved.fingerprint, self._fingerprint(), config.allow_changed_files
        ):
            return
        if type(saved.batches) is not int or saved.batches < 0:
            raise UserError(
                "the checkpoint was saved by a version that did not count batches: its position "
                "cannot be found in cached rows; go on with Data.rows_dir = None"
            )
        self._batches = saved.batches

    def _fingerprint(self) -> dict[str, object]:
        facts = self._directory.facts
        data = {"task": facts.settings["Data.task"], "files": facts.files}
        return position_fingerprint(self._config, data, facts.pieces_digest)


def row_eval_batches(config: DataConfig, directory: RowDirectory) -> list[Batch]:
    """Returns the batches of the evaluation split in a fixed order, the last one padded.

    Raises:
        UserError: if fewer of them are cached than `Data.eval_batches`, or files are damaged.
    """
    facts, size = directory.facts, config.batch_size
    found = facts.eval_rows if facts.eval_is_whole else facts.eval_rows // size * size
    wanted = config.eval_batches * size or None
    if not facts.eval_is_whole and (wanted is None or wanted > found):
        raise UserError(
            f"Data.rows_dir = {directory.path} has {facts.eval_rows} rows of the split "
            f"{config.eval_split!r}, not {'all' if wanted is None else wanted}; set "
            f"Data.eval_batches = {found // size}, or make the rows with other Data.eval_batches"
        )
    columns = directory.columns("eval")
    batches = []
    for first in range(0, min(found, wanted or found), size):
        batch = directory.batch(columns, slice(first, min(first + size, found)))
        padding = ((0, size - len(batch.targets_BS)), (0, 0))
        padded: dict[str, Any] = {
            name: None if value is None else np.pad(value, padding)
            for name, value in vars(batch).items()
        }
        batches.append(Batch(**padded))
    return batches
