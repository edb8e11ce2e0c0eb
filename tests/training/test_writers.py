"""The record of a run: what is written can be read back, by JSON and by TensorBoard's format."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from moe_jax.training.writers import METRICS_FILE, MetricWriter, read_metrics


@pytest.fixture
def directory(tmp_path):
    """Returns an empty run directory."""
    return epath.Path(tmp_path)


def write_steps(directory, steps, resumed_step=0, offset=0.0):
    """Writes a loss of step + offset for each step."""
    writer = MetricWriter(directory, resumed_step)
    for step in steps:
        writer.write(step, "train", {"loss": np.float32(step + offset)})
    writer.close()


def test_every_line_is_a_json_object(directory):
    writer = MetricWriter(directory, 0)
    writer.write(1, "train", {"loss": jnp.float32(2.5), "tokens": 64, "half": jnp.bfloat16(0.5)})
    writer.write(1, "eval", {"load": np.array([[0.25, 0.75]], np.float32), "text": 1})
    # Without closing: a crash loses nothing that was written.
    lines = (directory / METRICS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "kind": "train", "loss": 2.5, "tokens": 64, "half": 0.5},
        {"step": 1, "kind": "eval", "load": [[0.25, 0.75]], "text": 1},
    ]
    writer.close()


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


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_last_line_that_was_cut_is_left_out(directory, cut):
    """A crash in the middle of a line costs that line; what is written next starts a new one."""
    write_steps(directory, range(1, 4))
    path = directory / METRICS_FILE
    path.write_text(path.read_text()[: -cut - 1])
    assert [record["step"] for record in read_metrics(directory)] == [1, 2]
    write_steps(directory, [3], resumed_step=2, offset=0.5)
    assert [record["loss"] for record in read_metrics(directory)] == [1.0, 2.0, 3.5]


def read_events(directory):
    """Returns TensorBoard's events, oldest first, as TensorFlow reads them."""
    tensorflow = pytest.importorskip("tensorflow")
    files = sorted((directory / "tensorboard").glob("events.out.tfevents.*"))
    assert files
    iterate = tensorflow.compat.v1.train.summary_iterator
    return [event for file in files for event in iterate(str(file))]


def test_tensorboard_shows_scalars_layers_and_experts(directory):
    """A vector is a scalar per layer; a matrix, layer by expert, the extreme of each layer."""
    writer = MetricWriter(directory, 0)
    writer.write(3, "train", {"loss": jnp.float32(2.5)})
    writer.write(3, "eval", {"entropy": np.array([0.25, 0.5]), "load": np.array([[1, 3], [8, 6]])})
    writer.write_text("config", "Model.d_model = 32")
    writer.close()
    events = read_events(directory)
    values = [(event.step, value) for event in events for value in event.summary.value]
    scalars = {v.tag: (step, v.simple_value) for step, v in values if v.HasField("simple_value")}
    assert scalars == {
        "train/loss": (3, 2.5),
        "eval/entropy/0": (3, 0.25),
        "eval/entropy/1": (3, 0.5),
        "eval/load/0/max": (3, 3.0),
        "eval/load/1/max": (3, 8.0),
    }
    texts = [v.tensor.string_val[0].decode() for _, v in values if v.tag.startswith("config")]
    assert len(texts) == 1
    assert "Model.d_model = 32" in texts[0]


def test_tensorboard_is_told_to_purge_what_will_be_written_again(directory):
    """A session that starts at step r + 1 makes TensorBoard drop what came after step r."""
    write_steps(directory, [7], resumed_step=6)
    starts = [e.step for e in read_events(directory) if e.session_log.status == 1]
    assert starts == [7]
