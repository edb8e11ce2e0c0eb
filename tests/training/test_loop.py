"""The order of events in the training loop, with a fake step."""

import contextlib
import os
import signal
import types

import numpy as np
import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.training import loop as loops
from moe_jax.training.checkpointing.best import EarlyStop, Ranking
from moe_jax.training.loop import Instruments, Loop, TrainConfig
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason
from moe_jax.training.monitoring.goodput_recorder import GoodputRecorder


class Recorder:
    """A fake for everything that the loop works with; records the calls in order."""

    def __init__(self, bad=(), fails_at=None, stopped_at=None):
        self.events, self.saved, self._stopped_at = [], [0], stopped_at
        self._bad, self._fails_at, self._in_row, self._skipped = bad, fails_at, 0, 0

    # The batches.
    def __iter__(self):
        return self

    def __next__(self):
        self.events.append(("batch",))
        if self.events.count(("batch",)) == self._fails_at:
            raise OSError("the disk went away\nand more")
        return "batch"

    def step(self, state, batch):
        """Returns the state after the step, and its metrics as the device has them."""
        done = state.step + 1
        self.events.append(("step", done))
        if done == self._stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)
        bad = done in self._bad
        self._in_row = self._in_row + 1 if bad else 0
        self._skipped += bad
        metrics = {
            "loss": np.float32(np.nan if bad else 1 / done),
            "gradient_norm": np.float32(1),
            "tokens": np.float32(8),
            "skip_reason": int(SkipReason.LOSS if bad else SkipReason.NONE),
            "skipped_in_row": self._in_row,
            "skipped_total": self._skipped,
        }
        return types.SimpleNamespace(step=done, variables=f"variables {done}"), metrics

    # The checkpoints.
    def prepare(self, state):
        self.events.append(("prepare", state.step))

    def is_due(self, step):
        return step % 2 == 0

    def save(self, step, state, position, last, figures):
        assert state.step == step
        if last or self.is_due(step):
            self.events.append(("save", step))
            self.saved.append(step)

    def wait(self):
        self.events.append(("wait",))

    def latest(self):
        return self.saved[-1] or None

    # The writer and the reporter.
    def write(self, step, kind, figures):
        self.events.append(("write", kind, step))

    def message(self, line):
        self.events.append(("message", line))

    def start(self, first, steps): ...
    def stop(self): ...
    def update(self, *_): ...
    def activity(self, name):
        return contextlib.nullcontext()

    # The watchdog and the profiler.
    def __enter__(self): ...
    def __exit__(self, *_): ...
    def paused(self, what):
        return contextlib.nullcontext()

    def beat(self): ...
    def before(self, done): ...
    def after(self, done, metrics): ...
    def close(self): ...


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Returns a function that runs the loop from a step to another with a recorder."""
    monkeypatch.setattr(loops, "PreemptionNotice", lambda notice: contextlib.nullcontext())

    def run(recorder, first=0, limit=2, lacks_evaluation=False, early_stop=None, **config):
        instruments = Instruments(
            writer=recorder,
            reporter=recorder,
            goodput=GoodputRecorder(epath.Path(tmp_path)),
            watchdog=recorder,
            profiler=recorder,
            flops_per_token=1.0,
        )
        evaluated = dict.fromkeys(
            ("loss", "causal_loss", "bits_per_byte", "causal_bits_per_byte"), 1.0
        )
        loop = Loop(
            config=TrainConfig(log_every=1, **config),
            step=recorder.step,
            batches=recorder,
            evaluate=lambda variables: recorder.events.append(("evaluate", variables)) or evaluated,
            checkpoints=recorder,
            instruments=instruments,
            guard=GuardConfig(limit=limit),
            lacks_evaluation=lacks_evaluation,
            early_stop=early_stop or EarlyStop(Ranking.of("")),
        )
        return loop.run(types.SimpleNamespace(step=first, variables=f"variables {first}"))

    return run


def test_a_step_is_on_record_before_it_is_saved(train):
    """A process that is killed at any moment has the metrics of all saved steps."""
    recorder = Recorder()
    state, signal = train(recorder, steps=5, eval_every=3)
    assert (state.step, signal) == (5, None)
    events = recorder.events
    assert recorder.saved == [0, 2, 4, 5]
    for step in recorder.saved[1:]:
        assert events.index(("write", "train", step)) < events.index(("save", step))
    written = [event[2] for event in events if event[:2] == ("write", "train")]
    assert written == [1, 2, 3, 4, 5]
    # Evaluated with the variables after the step, before the save that knows the figures.
    assert [e[1] for e in events if e[0] == "evaluate"] == ["variables 3", "variables 5"]
    assert events.index(("write", "eval", 5)) < events.index(("save", 5))
    assert events[-1] == ("wait",)


def test_the_next_step_starts_before_the_record_of_the_last(train):
    """Fetching the metrics of a step first would leave the devices idle."""
    recorder = Recorder()
    train(recorder, steps=5, eval_every=0)
    order = [e for e in recorder.events if e[0] in ("step", "write", "prepare")]
    assert order.index(("step", 4)) < order.index(("write", "train", 3))
    # What a save computes is compiled while the second step is under way.
    assert order.index(("step", 2)) < order.index(("prepare", 2)) < order.index(("step", 3))


def test_data_that_fail_are_one_line_with_what_is_saved(train):
    with pytest.raises(UserError) as error:
        train(Recorder(fails_at=4), steps=9, eval_every=0)
    assert str(error.value) == (
        "the data failed (OSError: the disk went away and more); step 2 is saved: run the same "
        "command again to go on"
    )
    with pytest.raises(UserError, match="nothing was saved before: run"):
        train(Recorder(fails_at=1), steps=9, eval_every=0)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_too_many_bad_losses_in_a_row_stop_the_run(train, limit):
    recorder = Recorder(bad=range(4, 9))
    if not limit:
        assert train(recorder, steps=9, limit=0, eval_every=0)[0].step == 9
        return
    with pytest.raises(UserError, match=f"{limit} updates in a row were skipped") as error:
        train(recorder, steps=9, limit=limit, eval_every=0)
    assert "the loss is not finite" in str(error.value)
    # A step or two may be under way by then; the last of them is saved.
    last = next(e[1] for e in reversed(recorder.events) if e[0] == "step")
    assert 3 + limit <= last <= 5 + limit
    assert recorder.saved[-1] == last


def test_bad_losses_with_good_ones_between_do_not_stop_it(train):
    recorder = Recorder(bad=(2, 4, 6))
    assert train(recorder, steps=7, limit=2, eval_every=0)[0].step == 7
    told = [e[1] for e in recorder.events if e[0] == "message"]
    assert [line.partition(":")[0] for line in told if "skipped" in line] == [
        "step 2", "step 4", "step 6",
    ]  # fmt: skip


def test_a_finished_state_is_returned_as_it_is(train):
    recorder = Recorder()
    recorder.saved.append(5)
    state, signal = train(recorder, first=5, steps=5, eval_every=0)
    assert (state.step, signal) == (5, None)
    assert not any(event[0] in ("batch", "step", "save") for event in recorder.events)


def test_it_goes_on_where_it_was(train):
    recorder = Recorder()
    train(recorder, first=3, steps=5, eval_every=0)
    assert [event[1] for event in recorder.events if event[0] == "step"] == [4, 5]


def test_an_evaluation_that_a_stop_left_out_is_made_when_it_goes_on(train):
    """Otherwise the curve of an interrupted run would lack a point that others have."""
    recorder = Recorder(stopped_at=3)
    state, number = train(recorder, steps=9, eval_every=3)
    assert (state.step, number, recorder.saved[-1]) == (3, signal.SIGTERM, 3)
    assert not any(event[0] == "evaluate" for event in recorder.events)

    recorder = Recorder()
    train(recorder, first=3, lacks_evaluation=True, steps=6, eval_every=3)
    order = [
        e for e in recorder.events if e[0] in ("step", "evaluate") or e[:2] == ("write", "eval")
    ]
    assert order[:3] == [("evaluate", "variables 3"), ("write", "eval", 3), ("step", 4)]


def test_the_last_step_is_evaluated_though_the_run_is_to_stop(train):
    recorder = Recorder(stopped_at=5)
    assert train(recorder, steps=5, eval_every=2)[1] is None
    assert ("write", "eval", 5) in recorder.events
    assert recorder.saved[-1] == 5


def test_training_ends_early_with_a_checkpoint_and_without_a_signal(train):
    """All evaluations are equal: the first is the best, and two more are no better."""
    recorder = Recorder()
    stop = EarlyStop(Ranking.of(""), 2)
    state, signal_number = train(recorder, steps=20, eval_every=3, early_stop=stop)
    assert (state.step, signal_number) == (9, None)
    assert recorder.saved[-1] == 9
    events = recorder.events
    assert ("step", 10) not in events
    assert events.index(("write", "eval", 9)) < events.index(("save", 9))
    assert events[-1][1].startswith("Stopped early after step 9: 2 evaluations without improvement")
    # Run again with these evaluations on record, it has nothing to do.
    again = Recorder()
    again.saved.append(9)
    state, _ = train(again, first=9, steps=20, eval_every=3, early_stop=stop)
    assert state.step == 9
    assert ("batch",) not in again.events


def test_an_early_stop_at_the_last_step_is_none(train):
    recorder = Recorder()
    stop = EarlyStop(Ranking.of(""), 2)
    state, _ = train(recorder, steps=9, eval_every=3, early_stop=stop)
    assert state.step == 9
    assert not any("Stopped early" in str(event) for event in recorder.events)


def test_a_signal_before_the_last_evaluation_leaves_it_for_the_next_time(train):
    recorder, stop = Recorder(stopped_at=9), EarlyStop(Ranking.of(""), 2)
    state, signal_number = train(recorder, steps=20, eval_every=3, early_stop=stop)
    assert (state.step, signal_number) == (9, signal.SIGTERM)
    assert ("write", "eval", 9) not in recorder.events
    again = Recorder()
    again.saved.append(9)
    settings = {"steps": 20, "eval_every": 3, "lacks_evaluation": True, "early_stop": stop}
    state, signal_number = train(again, first=9, **settings)
    assert (state.step, signal_number) == (9, None)
    assert ("write", "eval", 9) in again.events
    assert ("batch",) not in again.events


def test_patience_needs_evaluations():
    with pytest.raises(UserError, match=r"Train.patience = 2 counts evaluations"):
        TrainConfig(steps=4, eval_every=0, patience=2)
