"""Ranges of rows per process, and global arrays made from local rows."""

import jax
import numpy as np

from moe_jax.sharding.global_arrays import make_global_arrays, process_row_ranges


class FakeDevice:
    def __init__(self, process_index):
        self.process_index = process_index


class FakeSharding:
    """Rows over devices, in an order in which a process's devices are not neighbours."""

    def __init__(self, *order):
        self._order = order

    def devices_indices_map(self, shape):
        size = shape[0] // len(self._order)
        return {
            FakeDevice(p): (slice(i * size, (i + 1) * size),) for i, p in enumerate(self._order)
        }


def test_the_rows_of_processes():
    assert process_row_ranges(FakeSharding(0, 0, 1, 1), 8) == {0: (0, 4), 1: (4, 8)}
    assert process_row_ranges(FakeSharding(0, 1, 0, 1), 8) == {0: (0, 6), 1: (2, 8)}


def test_rows_become_global_arrays():
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    rows = np.arange(12).reshape(4, 3)
    placed = make_global_arrays({"a": rows, "b": None}, sharding, 4, 0)
    np.testing.assert_array_equal(placed["a"], rows)
