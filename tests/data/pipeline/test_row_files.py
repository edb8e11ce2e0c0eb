"""Files of rows: what NumPy reads, and one line for all damage."""

import numpy as np
import pytest

from moe_jax.data.pipeline.row_files import RowFileWriter, map_rows
from moe_jax.errors import UserError

DTYPE = np.dtype(np.uint16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.npy"


def test_numpy_reads_what_was_written_in_parts(path):
    rows = np.arange(1_000 * 7).reshape(1_000, 7)
    with RowFileWriter(path, (7,), DTYPE) as writer:
        for part in np.array_split(rows, 9):
            writer.write(part)
        writer.write(rows[:0])
    np.testing.assert_array_equal(np.load(path, allow_pickle=False), rows)
    mapped = map_rows(path, (1_000, 7), DTYPE)
    np.testing.assert_array_equal(mapped, rows)
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable


def test_an_interrupted_file_is_no_whole_one(path):
    writer = RowFileWriter(path, (7,), DTYPE)
    writer.write(np.zeros((5, 7)))
    writer.__exit__(RuntimeError, RuntimeError(), None)
    with pytest.raises(UserError, match="is damaged"):
        map_rows(path, (5, 7), DTYPE)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def cut_in_header(path):
    path.write_bytes(path.read_bytes()[:20])


def huge(path):
    before, after = b"(5, 7), }" + b" " * 12, b"(5000000000000, 7), }"
    assert path.read_bytes().count(before) == 1
    path.write_bytes(path.read_bytes().replace(before, after))


DAMAGE = {
    "cut off": cut,
    "cut off in the header": cut_in_header,
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
    "no array": lambda path: path.write_bytes(b"\x93NUMPY" + b"\x00" * 200),
    "objects": lambda path: np.save(path, np.full((5, 7), {}, object), allow_pickle=True),
    "another type": lambda path: np.save(path, np.zeros((5, 7), np.float32)),
    "another byte order": lambda path: np.save(path, np.zeros((5, 7), ">u2")),
    "another shape": lambda path: np.save(path, np.zeros((7, 5), DTYPE)),
    "columns first": lambda path: np.save(path, np.zeros((5, 7), DTYPE, order="F")),
    "a scalar": lambda path: np.save(path, DTYPE.type(3)),
    "an archive": lambda path: np.savez(path.open("wb"), a=np.zeros((5, 7), DTYPE)),
    "larger than the file": huge,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_one_line(path, damage):
    with RowFileWriter(path, (7,), DTYPE) as writer:
        writer.write(np.ones((5, 7)))
    damage(path)
    with pytest.raises(UserError, match=r"rows\.npy is damaged: ") as error:
        map_rows(path, (5, 7), DTYPE)
    assert "\n" not in str(error.value)
