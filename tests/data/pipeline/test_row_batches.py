"""Positions in cached rows: parts of processes, and exact resumption from rows and from seqio."""

import dataclasses
import itertools
import json

import cached_rows
import numpy as np
import pytest
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.batch_source import open_source
from moe_jax.data.pipeline.data_shards import checkpoint_writers
from moe_jax.data.pipeline.input_pipeline import TrainBatches
from moe_jax.errors import UserError


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    home = tmp_path_factory.mktemp("rows")
    task = cached_rows.write_text(home / "numbers.txt")
    config = DataConfig(task, sequence_length=16, batch_size=8, seed=3, shards=2, eval_batches=2)
    return cached_rows.write_rows(config, home / "rows", steps=8)[0]


def batches(config, rows=None, writes=None):
    return open_source(config).train_batches(rows, writes)


@pytest.fixture(scope="module")
def seqio(config, tmp_path_factory):
    """Returns the seqio pipeline, a directory with its position after two batches, and eight."""
    pipeline = TrainBatches(dataclasses.replace(config, rows_dir=None))
    found = list(itertools.islice(pipeline, 2))
    directory = epath.Path(tmp_path_factory.mktemp("positions"))
    pipeline.save(directory)
    return pipeline, directory, [*found, *itertools.islice(pipeline, 6)]


@pytest.fixture
def expected(seqio):
    """Returns all batches, as the seqio pipeline gives them."""
    return seqio[-1]


@pytest.mark.parametrize("parts", [2, 8])
def test_processes_read_their_part(config, expected, parts):
    """Also a part of a shard."""
    size = 8 // parts
    readers = [batches(config, (i * size, (i + 1) * size)) for i in range(parts)]
    for wanted in expected[:2]:
        found = np.concatenate([next(reader).targets_BS for reader in readers])
        np.testing.assert_array_equal(found, wanted.targets_BS)


def test_two_processes_save_what_one_restores(config, expected, tmp_path):
    held = {0: (0, 4), 1: (4, 8)}
    writers = checkpoint_writers(config, held)
    for process, rows in held.items():
        part = batches(config, rows, [s for s, p in writers.items() if p == process])
        list(itertools.islice(part, 3))
        part.save(epath.Path(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stream_0", "stream_1"]
    one = batches(config)
    one.restore(epath.Path(tmp_path))
    cached_rows.assert_same(next(one), expected[3])


def test_rows_go_on_where_seqio_was_and_seqio_where_rows_were(config, seqio, tmp_path):
    (pipeline, second, expected), directory = seqio, epath.Path(tmp_path)
    rows = batches(config)
    rows.restore(second)
    cached_rows.assert_same(next(rows), expected[2])
    rows.save(directory / "3")
    # It has been used, as after a checkpoint that was damaged.
    pipeline.restore(directory / "3")
    cached_rows.assert_same(next(pipeline), expected[3])
    pipeline.save(directory / "4")
    rows.restore(directory / "4")
    cached_rows.assert_same(next(rows), expected[4])
    # The state of the pipeline itself, and what it counts from there.
    pipeline.restore(second)
    cached_rows.assert_same(next(pipeline), expected[2])
    pipeline.save(directory / "3 again")
    rows.restore(directory / "3 again")
    cached_rows.assert_same(next(rows), expected[3])


def edit(directory, **changes):
    for path in directory.glob("*/fingerprint.json"):
        entries = {**json.loads(path.read_text()), **changes}
        kept = {name: value for name, value in entries.items() if value is not None}
        path.write_text(json.dumps(kept))


def test_positions_that_do_not_fit_are_one_line(config, tmp_path):
    rows = batches(config)
    list(itertools.islice(rows, 2))
    rows.save(epath.Path(tmp_path))
    other = batches(dataclasses.replace(config, batch_size=16))
    with pytest.raises(UserError, match="batch_size: 8 -> 16"):
        other.restore(epath.Path(tmp_path))
    edit(tmp_path, files="other")
    with pytest.raises(UserError, match="not the files that were trained on"):
        rows.restore(epath.Path(tmp_path))
    changed = batches(dataclasses.replace(config, allow_changed_files=True))
    next(changed)
    changed.restore(epath.Path(tmp_path))
    cached_rows.assert_same(next(changed), next(batches(config)))
    edit(tmp_path, files=open_source(config)._directory.facts.files, batches=None)
    with pytest.raises(UserError, match=r"did not count batches.* Data.rows_dir = None"):
        rows.restore(epath.Path(tmp_path))


def test_evaluation_has_no_more_batches_than_were_cached(config):
    assert len(open_source(config).eval_batches()) == 2
    assert len(open_source(dataclasses.replace(config, eval_batches=1)).eval_batches()) == 1
    for wanted, shown in ((0, "all"), (3, "24")):
        source = open_source(dataclasses.replace(config, eval_batches=wanted))
        with pytest.raises(UserError, match=f"has 16 rows .*, not {shown}; set Data.eval_batches"):
            source.eval_batches()
