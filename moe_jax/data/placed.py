"""Training batches as global arrays, each process reading the rows of its own devices."""

from collections.abc import Iterator

import jax
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline import TrainBatches
from moe_jax.data.streams import writers_of
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.placement import place_rows, process_rows


class PlacedBatches(Iterator[Batch]):
    """The batches of `TrainBatches`, their rows cut over all devices of a mesh.

    Raises:
        UserError: if the data are fewer than one batch.
    """

    def __init__(self, config: DataConfig, partition: Partition):
        self._sharding, self._size = partition.rows, config.batch_size
        held = process_rows(self._sharding, config.batch_size)
        own = jax.process_index()
        writes = [s for s, process in writers_of(config, held).items() if process == own]
        self._batches = TrainBatches(config, held[own], writes)

    def __next__(self) -> Batch:
        batch: Batch = place_rows(
            next(self._batches), self._sharding, self._size, self._batches.rows[0]
        )
        return batch

    def save(self, directory: epath.Path) -> None:
        """Writes the positions that are this process's to write."""
        self._batches.save(directory)

    def restore(self, directory: epath.Path) -> None:
        """Goes to a saved position."""
        self._batches.restore(directory)
