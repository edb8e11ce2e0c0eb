"""Create global arrays of batches from the rows that each process holds."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

# A range of rows of a batch: the first, and one past the last.
RowRange = tuple[int, int]


def process_row_ranges(sharding: Sharding, rows: int) -> dict[int, RowRange]:
    """Returns for every process the smallest range that contains all rows of its devices.

    Args:
        sharding: sharding of the first axis of a batch over the devices of all processes.
        rows: number of rows in the batch.

    Raises:
        ValueError: if the number of rows is not divisible by the number of shards.
    """
    held: dict[int, RowRange] = {}
    devices: Mapping[Any, Any] = sharding.devices_indices_map((rows,))
    for device, index in devices.items():
        first, last, _ = index[0].indices(rows)
        known = held.get(device.process_index, (first, last))
        held[device.process_index] = (min(first, known[0]), max(last, known[1]))
    return held


def make_global_arrays(tree: Any, sharding: Sharding, rows: int, first: int) -> Any:
    """Creates global arrays from the rows of this process.

    Args:
        tree: host arrays, [rows of this process, ...].
        sharding: sharding of the global arrays.
        rows: number of rows in the global batch.
        first: index in the global batch of the first row of `tree`.
    """

    def make(array: np.ndarray) -> jax.Array:
        def shard(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows)
            return array[(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, shard)

    return jax.tree.map(make, tree)
