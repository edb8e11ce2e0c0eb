"""Data shards: the same batches for any number of readers, saved by shard."""

import dataclasses
import json

import numpy as np
import pytest
from etils import epath
from tiers import slow

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.data_shards import checkpoint_writers, shards_of_rows
from moe_jax.data.pipeline.input_pipeline import TrainBatches
from moe_jax.errors import UserError

CONFIG = DataConfig(sequence_length=16, batch_size=8, seed=3, shards=4)


@pytest.fixture(autouse=True, scope="module")
def text(tmp_path_factory):
    """Gives all tests a text of their own: opening a stream of it is quick."""
    global CONFIG
    path = tmp_path_factory.mktemp("streams") / "numbers.txt"
    path.write_text("\n".join(f"Chapter {i} tells of whale number {i * 7}." for i in range(3000)))
    CONFIG = dataclasses.replace(CONFIG, task=f"text:{path}")


def readers(count):
    """Returns the rows that each of `count` processes reads."""
    size = CONFIG.batch_size // count
    return {i: (i * size, (i + 1) * size) for i in range(count)}


def open_all(count):
    held = readers(count)
    writers = checkpoint_writers(CONFIG, held)
    return [
        TrainBatches(CONFIG, rows, [s for s, p in writers.items() if p == process])
        for process, rows in held.items()
    ]


def whole(parts):
    """Returns the next batch as its readers have it together."""
    return np.concatenate([next(part).targets_BS for part in parts])


@pytest.mark.slow
def test_any_number_of_readers_reads_the_same_batches():
    one, two, four = (open_all(count) for count in (1, 2, 4))
    for _ in range(2):
        expected = whole(one)
        for parts in (two, four):
            np.testing.assert_array_equal(whole(parts), expected)
    assert len({row.tobytes() for row in expected}) == CONFIG.batch_size


@pytest.mark.slow
def test_streams_share_out_the_data():
    """No row is in two streams (in an epoch), and each stream opens only where it is needed."""
    (batches,) = open_all(1)
    rows = [row.tobytes() for _ in range(10) for row in next(batches).targets_BS]
    assert len(set(rows)) == len(rows)
    assert shards_of_rows(CONFIG, (0, 8)) == range(4)
    assert shards_of_rows(CONFIG, (2, 4)) == range(1, 2)
    assert shards_of_rows(CONFIG, (3, 5)) == range(1, 3)


def test_one_stream_is_written_by_one_process():
    assert checkpoint_writers(CONFIG, readers(2)) == {0: 0, 1: 0, 2: 1, 3: 1}
    assert checkpoint_writers(CONFIG, readers(8)) == {0: 0, 1: 2, 2: 4, 3: 6}
    assert checkpoint_writers(CONFIG, {1: (0, 8), 0: (4, 8)}) == {0: 1, 1: 1, 2: 0, 3: 0}


@pytest.mark.parametrize(("before", "after"), [(2, 1), slow(1, 4)])
def test_another_number_of_readers_goes_on_exactly(tmp_path, before, after):
    directory = epath.Path(tmp_path)
    saved = open_all(before)
    whole(saved)
    for part in saved:
        part.save(directory)
    assert len(list(tmp_path.glob("stream_*"))) == 4
    restored = open_all(after)
    for part in restored:
        part.restore(directory)
    for _ in range(2):
        np.testing.assert_array_equal(whole(restored), whole(saved))


@pytest.mark.slow
def test_another_number_of_streams_is_refused(tmp_path):
    TrainBatches(CONFIG).save(epath.Path(tmp_path))
    other = TrainBatches(dataclasses.replace(CONFIG, shards=8))
    with pytest.raises(UserError, match="shards: 4 -> 8"):
        other.restore(epath.Path(tmp_path))


@pytest.mark.slow
def test_positions_of_format_1_are_read(tmp_path):
    """Before there were streams, the only position was that of process 0."""
    config = dataclasses.replace(CONFIG, shards=1)
    batches = TrainBatches(config)
    next(batches)
    batches.save(epath.Path(tmp_path))
    (tmp_path / "stream_0").rename(tmp_path / "process_0")
    fingerprint = tmp_path / "process_0" / "fingerprint.json"
    facts = json.loads(fingerprint.read_text())
    del facts["shards"]
    fingerprint.write_text(json.dumps(facts))
    restored = TrainBatches(config)
    restored.restore(epath.Path(tmp_path))
    np.testing.assert_array_equal(next(restored).targets_BS, next(batches).targets_BS)
    with pytest.raises(UserError, match="shards: 1 -> 4"):
        TrainBatches(CONFIG).restore(epath.Path(tmp_path))


def test_streams_divide_the_batch():
    with pytest.raises(UserError, match=r"Data.shards = 3 does not divide Data.batch_size = 8"):
        DataConfig(batch_size=8, shards=3)


def test_too_little_text_for_a_stream_is_named(tmp_path):
    (tmp_path / "book.txt").write_text("A whale and a ship.\n" * 4)
    config = DataConfig(task=f"text:{tmp_path}/*.txt", sequence_length=32, batch_size=8, shards=4)
    with pytest.raises(UserError, match=r"in stream 1 of 4, fewer than one batch of 2"):
        TrainBatches(config, (2, 4))
