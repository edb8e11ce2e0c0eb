"""The record of a run: what is written can be read back, by JSON and by TensorBoard's format."""

import importlib.util
import json
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.training import metrics_file
from moe_jax.training import writers as writers_module
from moe_jax.training.board_writers import TensorBoardWriter
from moe_jax.training.metrics_file import JsonlWriter
from moe_jax.training.writers import (
    METRICS_FILE,
    WriterConfig,
    Writers,
    make_writer,
    read_metrics,
)


@pytest.fixture
def directory(tmp_path):
    """Returns an empty run directory."""
    return epath.Path(tmp_path)


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
    write_steps(directory, [7], resumed_step=6)
    starts = [e.step for e in read_events(directory) if e.session_log.status == 1]
    assert starts == [7]


# What fails does not stop training.


class Failing:
    """A writer that fails at the calls given, and notes those that it is asked for."""

    def __init__(self, name, failing):
        self.name, self.failing, self.calls = name, set(failing), []

    def write(self, step, kind, metrics):
        self.calls.append((step, kind, {name: value.tolist() for name, value in metrics.items()}))
        if step in self.failing:
            raise RuntimeError(f"no {step}")

    def write_text(self, name, text):
        raise RuntimeError("no texts")

    def close(self):
        self.calls.append("close")


def test_a_failing_writer_is_warned_of_once_and_rests(directory):
    now, warnings = [0.0], []
    bad, good = Failing("bad", {1, 2, 5}), Failing("good", set())
    writers = Writers([bad, good], warnings.append, clock=lambda: now[0])
    for step, seconds in ((1, 0), (2, 59), (3, 2), (4, 0), (5, 0)):
        now[0] += seconds
        writers.write(step, "train", {"loss": 0.5})
    writers.close()
    # Step 2 comes within the minute of rest; 5 fails once more, without another warning.
    assert [call[0] for call in bad.calls] == [1, 3, 4, 5, "c"]
    assert bad.calls[0] == (1, "train", {"loss": 0.5})
    assert [call[0] for call in good.calls] == [1, 2, 3, 4, 5, "c"]
    assert warnings == ["bad fails, training goes on: no 1"]


def fail_to_open(monkeypatch, directory, name):
    """Makes files whose path holds a name fail to open; returns the means to mend it."""
    cls, broken = type(directory), [True]
    opened = cls.open

    def open_(path, *args, **more):
        if broken[0] and name in str(path):
            raise OSError(28, "No space left on device")
        return opened(path, *args, **more)

    monkeypatch.setattr(cls, "open", open_)
    return lambda: broken.__setitem__(0, False)


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
    monkeypatch.setattr(metrics_file, "_WAITING", 3)
    writer = make_writer(directory, 0, WriterConfig(tensorboard=False), lambda text: None)
    mend = fail_to_open(monkeypatch, directory, METRICS_FILE)
    for step in range(1, 6):
        writer.write(step, "train", {"loss": 1.0})
    mend()
    writer.close()
    assert [record["step"] for record in read_metrics(directory)] == [3, 4, 5]


class HalfFull:
    """A file that takes part of a line and then fails, in writing and in closing."""

    def __init__(self, path):
        self.path = path

    def write(self, text):
        with open(self.path, "a") as file:
            file.write(text[:10])

    def flush(self):
        raise OSError(28, "No space left on device")

    def close(self):
        raise OSError(28, "No space left on device")


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


# Weights & Biases, with a package of our own in its place.


class FakeRun:
    """Notes what a run is told."""

    def __init__(self, **options):
        self.options, self.logged, self.metrics, self.finished = options, [], [], False
        self.config = self
        self.texts = {}

    def define_metric(self, name, step_metric):
        self.metrics.append((name, step_metric))

    def log(self, values):
        self.logged.append(values)

    def update(self, values, allow_val_change):
        self.texts |= values

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """Puts a module in the place of wandb; returns it with its runs."""
    module = types.ModuleType("wandb")
    module.runs = []

    def init(**options):
        module.runs.append(FakeRun(**options))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_weights_and_biases_gets_the_same(directory, wandb):
    config = WriterConfig(tensorboard=False, wandb_project="moe")
    for resumed in (0, 4):
        writer = make_writer(directory, resumed, config)
        writer.write(5, "train", {"loss": jnp.float32(2.5), "entropy": np.array([0.25, 0.5])})
        writer.write_text("config.gin", "STEPS = 5")
        writer.close()
    first, second = wandb.runs
    assert first.options["project"] == "moe"
    assert first.options["name"] == directory.name
    assert first.options["dir"] == str(directory)
    # The same run goes on, and its steps may go back.
    assert first.options["id"] == second.options["id"]
    assert second.options["resume"] == "allow"
    assert first.metrics == [("*", "step")]
    assert first.logged == [
        {"step": 5, "train/loss": 2.5, "train/entropy/0": 0.25, "train/entropy/1": 0.5}
    ]
    assert first.texts == {"config.gin": "STEPS = 5"}
    assert first.finished


def test_weights_and_biases_that_cannot_start_is_a_warning(directory, wandb):
    def init(**options):
        raise RuntimeError("api_key not configured\n(no-tty)")

    wandb.init, warnings = init, []
    config = WriterConfig(tensorboard=False, wandb_project="moe", wandb_name="one")
    writer = make_writer(directory, 0, config, warnings.append)
    writer.write(1, "train", {"loss": 1.0})
    writer.close()
    assert len(read_metrics(directory)) == 1
    assert warnings == [
        "Weights & Biases cannot be started, training goes on without: "
        "api_key not configured (no-tty)"
    ]


@pytest.mark.parametrize("main", [True, False])
def test_a_missing_package_is_told_in_one_line_by_every_process(directory, monkeypatch, main):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.delitem(sys.modules, "wandb")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(writers_module, "is_main", lambda: main)
    with pytest.raises(UserError, match=r"moe_jax\[wandb\]") as error:
        make_writer(directory, 0, WriterConfig(wandb_project="moe"))
    assert "\n" not in str(error.value)


def test_only_the_first_process_writes(directory, monkeypatch):
    monkeypatch.setattr(writers_module, "is_main", lambda: False)
    writer = make_writer(directory, 0)
    writer.write(1, "train", {"loss": 1.0})
    writer.write_text("config", "")
    writer.close()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tensorboard": "yes"}, "tensorboard must be True or False, not 'yes'"),
        ({"wandb_project": " "}, "wandb_project must be a name"),
        ({"wandb_project": 3}, "wandb_project must be a name"),
        ({"wandb_name": "one"}, "wandb_name needs Writers.wandb_project"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        WriterConfig(**settings)
