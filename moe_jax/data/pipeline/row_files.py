"""Arrays of rows in `.npy` files: written a few rows at a time, read through memory maps."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from moe_jax.errors import UserError


class RowFileWriter:
    """Writes an array [R, ...] to a `.npy` file, whose R is known only at the end.

    Args:
        path: the file.
        row_shape: shape of a row, such as (S,).
        dtype: type of the elements.

    Attributes:
        rows: number of rows written.
    """

    def __init__(self, path: Path, row_shape: Sequence[int], dtype: np.dtype):
        self.rows = 0
        self._row_shape, self._dtype = tuple(row_shape), dtype
        self._file = path.open("wb")
        self._write_header()
        self._header_bytes = self._file.tell()

    def write(self, rows: np.ndarray) -> None:
        """Appends rows, [N, ...]."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.rows += len(rows)

    def _write_header(self) -> None:
        # NumPy leaves room in the header for the first dimension to grow.
        np.lib.format.write_array_header_1_0(
            self._file,
            {
                "descr": np.lib.format.dtype_to_descr(self._dtype),
                "fortran_order": False,
                "shape": (self.rows, *self._row_shape),
            },
        )

    def __enter__(self) -> "RowFileWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._file.seek(0)
                self._write_header()
                assert self._file.tell() == self._header_bytes


def map_rows(path: Path, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Opens an array as a read-only memory map.

    Raises:
        UserError: if the file is missing or cut off, or holds something else.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # Of the many kinds that a damaged header can cause.
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged: {reason}") from None
    expected = f"{dtype} of shape {tuple(shape)}"
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is damaged: it holds no single array, expected {expected}")
    if array.dtype != dtype or array.shape != tuple(shape) or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else ", in Fortran order"
        raise UserError(
            f"{path} is damaged: it holds {array.dtype} of shape {array.shape}{order}, "
            f"expected {expected}"
        )
    return array
