"""Which rows of a batch a process holds, and global arrays made of them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

# Rows of a batch: first, and one past the last.
Rows = tuple[int, int]


def process_row_ranges(sharding: Sharding, rows: int) -> dict[int, Rows]:
    """Returns for every process the smallest range with all rows that its devices hold.

    Args:
        sharding: of arrays whose first axis counts rows, over the devices of all processes.
        rows: in the batch.

    Raises:
        ValueError: if the rows do not divide over the devices.
    """
    held: dict[int, Rows] = {}
    devices: Mapping[Any, Any] = sharding.devices_indices_map((rows,))
    for device, index in devices.items():
        first, last, _ = index[0].indices(rows)
        known = held.get(device.process_index, (first, last))
        held[device.process_index] = (min(first, known[0]), max(last, known[1]))
    return held


def make_global_arrays(tree: Any, sharding: Sharding, rows: int, first: int) -> Any:
    """Makes global arrays from the rows that this process has.

    Args:
        tree: host arrays, [rows of this process, ...].
        sharding: of the global arrays.
        rows: in the global batch.
        first: which of them is the first in `tree`.
    """

    def place(array: np.ndarray) -> jax.Array:
        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows)
            return array[(slice(start - first, stop - first), *index[1:])]

        return jax.make_array_from_callback((rows, *array.shape[1:]), sharding, part)

    return jax.tree.map(place, tree)
