"""Reading the checkpoints of a run that goes on, and removes old ones."""

import pytest
from etils import epath

from moe_jax.errors import UserError
from moe_jax.runs import loading
from moe_jax.training.checkpointing.best import Ranking

DIRECTORY = epath.Path("run")
RUN = loading.Run(DIRECTORY, None, "")


def fake(monkeypatch, *looks):
    """Lets each look at the run find other steps; only `good` ones can be read."""
    remaining, read, closed = list(looks), [], []

    class CheckpointManager:
        def __init__(self, directory):
            assert directory == DIRECTORY / "checkpoints"
            self._steps, self._good = remaining.pop(0)

        def steps(self):
            return self._steps

        def restore_variables(self, step, model):
            read.append(step)
            if step not in self._good:
                raise UserError(f"checkpoint {step} cannot be read")
            return f"arrays of {step}"

        def close(self):
            closed.append(self)

    monkeypatch.setattr(loading, "CheckpointManager", CheckpointManager)
    return read, closed


def test_the_latest_is_read(monkeypatch):
    fake(monkeypatch, ([1, 2], [1, 2]))
    assert loading.load_variables(RUN, None, None) == (2, "arrays of 2")


def test_one_that_is_removed_meanwhile_leaves_a_later_one(monkeypatch):
    read, closed = fake(monkeypatch, ([1, 2], []), ([5, 6], []), ([8, 9], [9]))
    assert loading.load_variables(RUN, None, None) == (9, "arrays of 9")
    assert read == [2, 6, 9]
    assert len(closed) == 3


def test_one_that_stays_and_cannot_be_read_is_an_error(monkeypatch):
    read, closed = fake(monkeypatch, ([1, 2], [1]), ([1, 2], [1]))
    with pytest.raises(UserError, match="checkpoint 2 cannot be read"):
        loading.load_variables(RUN, None, None)
    assert read == [2]
    assert len(closed) == 2


def test_a_step_that_was_asked_for_is_not_replaced(monkeypatch):
    fake(monkeypatch, ([1, 2], [1]))
    with pytest.raises(UserError, match="checkpoint 2 cannot be read"):
        loading.load_variables(RUN, 2, None)


@pytest.mark.parametrize(
    ("steps", "step", "message"),
    [
        ([], None, "no complete checkpoint yet"),
        ([1, 2], 3, "no checkpoint at step 3; it has: 1, 2"),
    ],
)
def test_what_is_not_there(monkeypatch, steps, step, message):
    fake(monkeypatch, (steps, steps))
    with pytest.raises(UserError, match=message):
        loading.load_variables(RUN, step, None)


class Checkpoints:
    """Checkpoints with the metrics that they were saved with."""

    def __init__(self, metrics, steps=(2, 4, 6)):
        self._metrics, self._steps = metrics, list(steps)

    def metrics(self):
        return self._metrics

    def steps(self):
        return self._steps


SCORES = {2: {"causal_loss": 3.0, "f1": 0.5}, 4: {"causal_loss": 1.0, "f1": 0.25}}


@pytest.mark.parametrize(
    ("step", "best_is", "chosen"),
    [
        (None, "", 6),
        ("latest", "", 6),
        (4, "", 4),
        ("best", "", 4),
        ("best", "f1", 2),
        ("best", "-f1", 4),
    ],
)
def test_a_step_is_a_number_the_latest_or_the_best(step, best_is, chosen):
    checkpoints = Checkpoints(SCORES)
    assert loading.choose_step(DIRECTORY, checkpoints, step, Ranking.of(best_is)) == chosen


@pytest.mark.parametrize(
    ("step", "checkpoints", "message"),
    [
        ("best", Checkpoints({}), "no checkpoint whose evaluation has causal_loss.*: 2, 4, 6"),
        (3, Checkpoints(SCORES), "no checkpoint at step 3; it has: 2, 4, 6"),
        ("best", Checkpoints({}, []), "has no complete checkpoint yet"),
    ],
)
def test_a_step_that_is_not_there_is_one_line(step, checkpoints, message):
    with pytest.raises(UserError, match=message) as error:
        loading.choose_step(DIRECTORY, checkpoints, step, Ranking.of(""))
    assert "\n" not in str(error.value)
