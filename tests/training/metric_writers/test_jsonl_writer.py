"""`metrics.jsonl`: JSON lines that survive crashes and full disks."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import HalfFull, fail_to_open

from moe_jax.training.metric_writers import jsonl_writer
from moe_jax.training.metric_writers.config import WriterConfig
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE, JsonlWriter, read_metrics
from moe_jax.training.metric_writers.make_writer import make_writer


def write_steps(directory, steps, resumed_step=0, offset=0.0):
    """Writes a loss of step + offset for each step."""
    writer = make_writer(directory, resumed_step)
    for step in steps:
        writer.write(step, "train", {"loss": np.float32(step + offset)})
    writer.close()


def test_every_line_is_a_json_object(directory):
    writer = make_writer(directory, 0)
    writer.write(1, "train", {"loss": jnp.float32(2.5), "tokens": 64, "half": jnp.bfloat16(0.5)})
    writer.write(1, "eval", {"load": np.array([[0.25, 0.75]], np.float32), "text": 1})
    # Without closing: a crash loses nothing that was written.
    lines = (directory / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "kind": "train", "loss": 2.5, "tokens": 64, "half": 0.5},
        {"step": 1, "kind": "eval", "load": [[0.25, 0.75]], "text": 1},
    ]
    writer.close()


def test_a_part_of_the_training_records_can_be_read(directory):
    writer = make_writer(directory, 0)
    for step in range(1, 12):
        writer.write(step, "train", {"loss": np.float32(step)})
        if step % 5 == 0:
            writer.write(step, "eval", {"loss": np.float32(step)})
    writer.close()

    def steps(kind, most):
        return [r["step"] for r in read_metrics(directory, most) if r["kind"] == kind]

    assert steps("train", 11) == steps("train", None) == list(range(1, 12))
    assert steps("train", 10) == steps("train", 6) == [1, 3, 5, 7, 9, 11]
    assert steps("train", 4) == [1, 4, 7, 10, 11]
    assert steps("eval", 4) == [5, 10]


def test_no_record_of_a_new_run(directory):
    assert read_metrics(directory) == []


def test_resuming_drops_later_steps(directory):
    write_steps(directory, range(1, 8))
    write_steps(directory, range(5, 7), resumed_step=4, offset=0.5)
    records = [(record["step"], record["loss"]) for record in read_metrics(directory)]
    assert records == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 5.5), (6, 6.5)]


def test_starting_over_drops_everything(directory):
    write_steps(directory, range(1, 4))
    write_steps(directory, [1], offset=0.5)
    assert [record["loss"] for record in read_metrics(directory)] == [1.5]


@pytest.mark.parametrize("removed", [1, 10, 20])
def test_last_line_that_was_cut_is_left_out(directory, removed):
    """A crash in the middle of a line costs that line; what is written next starts a new one."""
    write_steps(directory, range(1, 4))
    path = directory / METRICS_FILE
    path.write_text(path.read_text()[: -removed - 1])
    assert [record["step"] for record in read_metrics(directory)] == [1, 2]
    write_steps(directory, [3], resumed_step=2, offset=0.5)
    assert [record["loss"] for record in read_metrics(directory)] == [1.0, 2.0, 3.5]


def test_records_wait_for_a_full_disk(directory, monkeypatch):
    warnings = []
    writer = make_writer(directory, 0, WriterConfig(tensorboard=False), warnings.append)
    mend = fail_to_open(monkeypatch, directory, METRICS_FILE)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": np.float32(step)})
    assert read_metrics(directory) == []
    mend()
    writer.write(4, "train", {"loss": np.float32(4)})
    assert [(r["step"], r["loss"]) for r in read_metrics(directory)] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 4.0),
    ]
    writer.close()
    assert len(warnings) == 1
    assert warnings[0].startswith("metrics.jsonl fails, training goes on: ")


def test_a_disk_that_stays_full_is_told_at_the_end(directory, monkeypatch):
    warnings = []
    writer = make_writer(directory, 0, WriterConfig(tensorboard=False), warnings.append)
    fail_to_open(monkeypatch, directory, METRICS_FILE)
    for step in (1, 2):
        writer.write(step, "train", {"loss": 1.0})
    writer.close()
    assert len(warnings) == 2
    assert "2 records are lost" in warnings[1]


def test_a_bounded_number_of_records_waits(directory, monkeypatch):
    monkeypatch.setattr(jsonl_writer, "_MAX_PENDING", 3)
    writer = make_writer(directory, 0, WriterConfig(tensorboard=False), lambda text: None)
    mend = fail_to_open(monkeypatch, directory, METRICS_FILE)
    for step in range(1, 6):
        writer.write(step, "train", {"loss": 1.0})
    mend()
    writer.close()
    assert [record["step"] for record in read_metrics(directory)] == [3, 4, 5]


def test_half_a_line_costs_no_other(directory):
    writer = JsonlWriter(directory, 0)
    writer.write(1, "train", {"loss": 1.0})
    writer._file.close()
    writer._file = HalfFull(directory / METRICS_FILE)
    with pytest.raises(OSError, match="No space"):
        writer.write(2, "train", {"loss": 2.0})
    writer.write(3, "train", {"loss": 3.0})
    assert (directory / METRICS_FILE).read_text().splitlines()[1] == '{"step": 2'
    assert [record["loss"] for record in read_metrics(directory)] == [1.0, 2.0, 3.0]


def test_dropping_later_records_on_a_full_disk_keeps_the_earlier(directory, monkeypatch):
    write_steps(directory, range(1, 5))
    before = (directory / METRICS_FILE).read_text()
    cls = type(directory)
    whole = cls.write_text

    def full(path, text, *args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cls, "write_text", full)
    writer = make_writer(directory, 2, WriterConfig(tensorboard=False), lambda text: None)
    writer.write(3, "train", {"loss": 3.5})
    assert (directory / METRICS_FILE).read_text() == before
    monkeypatch.setattr(cls, "write_text", whole)
    writer.close()
    assert [record["loss"] for record in read_metrics(directory)] == [1.0, 2.0, 3.5]
