"""The best evaluation, and the end of training that waits for a better one in vain."""

import math

import pytest

from moe_jax.errors import UserError
from moe_jax.training.checkpointing.best import EarlyStop, Ranking


def losses(*values):
    return {step: {"causal_loss": value} for step, value in enumerate(values, start=1)}


@pytest.mark.parametrize(
    ("best_is", "evaluations", "step"),
    [
        ("", losses(3.0, 1.0, 2.0), 2),
        ("-causal_loss", losses(3.0, 1.0, 2.0), 2),
        ("", losses(3.0, math.nan, None), 1),
        ("", losses(math.inf, None), None),
        ("", {}, None),
        # Of equal ones the latest, as of the checkpoints that are kept.
        ("", losses(1.0, 1.0, 2.0), 2),
        ("task/accuracy", {4: {"task/accuracy": 0.5}, 8: {"task/accuracy": 0.75}, 12: {}}, 8),
        ("-task/error", {4: {"task/error": 0.5}, 8: {"task/error": 0.75}}, 4),
    ],
)
def test_the_best_of_evaluations(best_is, evaluations, step):
    assert Ranking.of(best_is).best(evaluations) == step


@pytest.mark.parametrize("name", ["causal_loss", "perplexity", "causal_bits_per_byte"])
def test_the_highest_loss_is_nobodys_best(name):
    with pytest.raises(UserError, match=f"'-{name}' for the lowest"):
        Ranking.of(name)
    assert str(Ranking.of(f"-{name}")) == f"lowest {name}"


def test_a_metric_that_evaluations_lack_is_named():
    stop = EarlyStop(Ranking.of("task/acuracy"))
    with pytest.raises(UserError, match=r"names 'task/acuracy', .*Did you mean 'task/accuracy'\?"):
        stop.add(1, {"task/accuracy": 0.5, "loss": 1.0})


@pytest.mark.parametrize(
    ("patience", "values", "ends"),
    [
        # A value that is only as good is no improvement.
        (2, [0.5, 0.6, 0.6, 0.6, 0.9], 4),
        (1, [0.5, 0.4], 2),
        (2, [0.5, 0.4, 0.6, 0.5, 0.7], None),
        (2, [math.nan, math.nan, 0.1], 2),
        (0, [0.5, 0.4, 0.3, 0.2], None),
    ],
)
def test_training_ends_after_some_evaluations_without_a_better_one(patience, values, ends):
    stop, ended = EarlyStop(Ranking.of("task/accuracy"), patience), None
    for step, value in enumerate(values, start=1):
        stop.add(step, {"task/accuracy": value})
        if stop.is_due and ended is None:
            ended = step
    assert ended == ends


def test_what_was_evaluated_before_an_interruption_counts():
    stop = EarlyStop(Ranking.of(""), 2, {0: {"causal_loss": 0.1}} | losses(3.0, 2.0, 2.5))
    assert not stop.is_due
    # Going on repeats the last one.
    stop.add(3, {"causal_loss": 2.5})
    assert not stop.is_due
    stop.add(4, {"causal_loss": 2.25})
    assert stop.is_due
    # The one before the first step has no checkpoint.
    assert stop.best_step == 2
    assert stop.message(4) == (
        "Stopped early after step 4: 2 evaluations without improvement (Train.patience); the "
        "lowest causal_loss: 2 at step 2"
    )
