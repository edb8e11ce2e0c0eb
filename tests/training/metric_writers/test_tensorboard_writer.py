"""TensorBoard's event files, read back by TensorFlow."""

import jax.numpy as jnp
import numpy as np
import pytest
from full_disk import HalfFull

from moe_jax.training.metric_writers.config import WriterConfig
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.metric_writers.make_writer import make_writer
from moe_jax.training.metric_writers.tensorboard_writer import TensorBoardWriter


def read_events(directory):
    """Returns TensorBoard's events, oldest first, as TensorFlow reads them."""
    tensorflow = pytest.importorskip("tensorflow")
    files = sorted((directory / "tensorboard").glob("events.out.tfevents.*"))
    assert files
    iterate = tensorflow.compat.v1.train.summary_iterator
    return [event for file in files for event in iterate(str(file))]


def test_tensorboard_shows_scalars_layers_and_experts(directory):
    """A vector is a scalar per layer; a matrix, layer by expert, the extreme of each layer."""
    writer = make_writer(directory, 0)
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
    writer = make_writer(directory, 6)
    writer.write(7, "train", {"loss": np.float32(7)})
    writer.close()
    starts = [e.step for e in read_events(directory) if e.session_log.status == 1]
    assert starts == [7]


def test_tensorboard_goes_on_in_a_new_file_after_an_error(directory):
    """Half a record would make the rest of its file unreadable."""
    writer = TensorBoardWriter(directory, 0)
    record = {"loss": np.asarray(0.5)}
    writer.write(1, "train", record)
    file = writer._file._py_recordio_writer._writer
    broken = HalfFull("/dev/null")
    writer._file._py_recordio_writer._writer = broken
    broken.write = lambda data: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        writer.write(2, "train", record)
    file.close()
    writer.write(3, "train", record)
    writer.close()
    steps = {e.step for e in read_events(directory) if e.HasField("summary")}
    assert steps == {1, 3}


def test_a_tensorboard_that_cannot_start_is_a_warning(directory, monkeypatch):
    warnings = []
    (directory / "tensorboard").write_text("a file in its place")
    writer = make_writer(directory, 0, WriterConfig(), warnings.append)
    for step in (1, 2):
        writer.write(step, "train", {"loss": 1.0})
    writer.close()
    assert len(read_metrics(directory)) == 2
    assert [text.partition(" ")[0] for text in warnings] == ["TensorBoard"]


def test_without_tensorboard(directory):
    writer = make_writer(directory, 0, WriterConfig(tensorboard=False))
    writer.write(1, "train", {"loss": 1.0})
    writer.close()
    assert not (directory / "tensorboard").exists()
