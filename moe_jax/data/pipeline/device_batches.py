"""Device placement of training batches: global arrays, of which each process reads its rows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.batch_source import BatchSource, CheckpointableIterator
from moe_jax.data.pipeline.data_shards import checkpoint_writers
from moe_jax.sharding.global_arrays import make_global_arrays, process_row_ranges
from moe_jax.sharding.partition import Partition

if TYPE_CHECKING:  # It imports TensorFlow.
    from moe_jax.data.pipeline.curriculum import CurriculumBatches


def train_batches(
    source: BatchSource, config: DataConfig, partition: Partition
) -> CheckpointableIterator:
    """Returns the training batches of a configuration without a curriculum.

    Args:
        source: source of the batches of `config`.
        config: configuration of the data.
        partition: partition of arrays over the mesh.

    Raises:
        UserError: if the data are fewer than one batch, or cannot be read.
    """
    if not partition.is_sharded:
        return source.train_batches()
    rows = process_row_ranges(partition.rows, config.batch_size)
    local = jax.process_index()
    writes = [s for s, process in checkpoint_writers(config, rows).items() if process == local]
    return DeviceBatches(source.train_batches(rows[local], writes), config, partition)


def curriculum_batches(
    config: DataConfig, partition: Partition
) -> "tuple[CheckpointableIterator, CurriculumBatches]":
    """Returns the training batches in curriculum order, and the underlying curriculum.

    Raises:
        UserError: if the data are fewer than one batch.
    """
    from moe_jax.data.pipeline.curriculum import CurriculumBatches

    if not partition.is_sharded:
        batches = CurriculumBatches(config)
        return batches, batches
    part = process_row_ranges(partition.rows, config.batch_size)[jax.process_index()]
    batches = CurriculumBatches(config, part)
    return DeviceBatches(batches, config, partition), batches


class DeviceBatches(Iterator[Batch]):
    """Batches as global arrays, sharded over the devices of a mesh.

    Args:
        batches: batches with the rows of this process's devices.
        config: configuration of the data.
        partition: partition of arrays over the mesh.
    """

    def __init__(self, batches: CheckpointableIterator, config: DataConfig, partition: Partition):
        self._batches = batches
        self._sharding, self._size = partition.rows, config.batch_size
        self._first, _ = process_row_ranges(partition.rows, config.batch_size)[jax.process_index()]

    def __next__(self) -> Batch:
        batch: Batch = make_global_arrays(
            next(self._batches), self._sharding, self._size, self._first
        )
        return batch

    def save(self, directory: epath.Path) -> None:
        """Writes the iterator states that this process is responsible for."""
        self._batches.save(directory)

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state."""
        self._batches.restore(directory)
