"""Skipped updates, against a plain Python loop and within the training step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.errors import UserError
from moe_jax.training.loss_spike_guard import GuardConfig, SkipReason, decide_skip, make_guard
from moe_jax.training.optimizers import adamw
from moe_jax.training.schedules import inverse_square_root
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, StepOptions, make_train_step


def run(config, values):
    """Returns which of (loss, gradient norm) lead to an update, and the state at the end."""
    state, made = make_guard(), []
    for loss, norm in values:
        reason, state = decide_skip(config, state, jnp.float32(loss), jnp.float32(norm))
        made.append(int(reason) == SkipReason.NONE)
    return made, state


def test_what_is_not_finite_is_always_skipped():
    values = [(1, 1), (np.nan, 1), (1, np.inf), (1, 1), (-np.inf, np.nan), (2, 1)]
    made, state = run(GuardConfig(), values)
    assert made == [True, False, False, True, False, True]
    assert (int(state.seen), int(state.skipped), int(state.in_row)) == (3, 3, 0)
    # Three values were taken in: the mean of 1, 1, 2.
    np.testing.assert_allclose(state.mean, [4 / 3, 1], rtol=1e-6)


def test_moving_mean_and_deviation_are_the_definition():
    """Over the first `window` steps the plain mean and population variance, then exponential."""
    values = np.random.default_rng(0).normal(3, 0.5, size=(12, 2))
    _, state = run(GuardConfig(window=12), values)
    np.testing.assert_allclose(state.mean, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state.variance, values.var(0), rtol=1e-4)
    _, longer = run(GuardConfig(window=12), [*values, (9, 9)])
    weight = 1 / 12
    np.testing.assert_allclose(longer.mean, values.mean(0) * (1 - weight) + 9 * weight, rtol=1e-5)


@pytest.mark.parametrize("which", [0, 1])
def test_a_spike_is_skipped_and_hardly_counts(which):
    rng = np.random.default_rng(1)
    usual = rng.normal(3, 0.1, size=(64, 2))
    spike = np.array([3.0, 3.0])
    spike[which] = 30.0
    config = GuardConfig(spike=6, window=32)
    made, state = run(config, [*usual, spike, usual[0]])
    assert made == [*[True] * 64, False, True]
    assert abs(float(state.mean[which]) - 3) < 0.1
    # Before the window is full nothing is a spike, and without `spike` nothing ever is.
    assert all(run(config, [*usual[:30], spike])[0])
    assert all(run(GuardConfig(window=32), [*usual, spike])[0])


def test_a_lasting_change_is_accepted_in_the_end():
    values = [(3 + 0.1 * (i % 2), 1 + 0.1 * (i % 2)) for i in range(64)]
    made, _ = run(GuardConfig(spike=6, window=32), [*values, *[(9, 1.05)] * 200])
    assert not made[64]
    assert all(made[-20:])


@pytest.mark.parametrize(
    ("values", "update", "router", "reason"),
    [
        ((1, 1), True, True, SkipReason.NONE),
        ((np.nan, np.nan), False, False, SkipReason.LOSS),
        ((1, np.inf), False, False, SkipReason.GRADIENT),
        ((1, 1), False, False, SkipReason.UPDATE),
        ((1, 1), True, False, SkipReason.ROUTER),
        ((9, 1), True, True, SkipReason.SPIKE),
        ((9, 1), False, True, SkipReason.UPDATE),
    ],
)
def test_the_first_reason_is_the_answer(values, update, router, reason):
    config = GuardConfig(spike=6, window=8)
    _, state = run(config, [(1 + 0.1 * (i % 2), 1) for i in range(8)])
    found, after = decide_skip(config, state, *map(jnp.float32, values), update, router)
    assert int(found) == reason
    # Of what is not finite, nothing is taken in, though the loss may be.
    takes = reason in (SkipReason.NONE, SkipReason.SPIKE)
    assert (after.mean != state.mean).any() == takes
    assert int(after.skipped) == (reason != SkipReason.NONE)


def test_a_huge_loss_leaves_the_moving_deviation_finite():
    _, state = run(GuardConfig(), [(1, 1), (3e38, 1), (1, 1)])
    assert np.isfinite(state.mean).all()
    assert np.isfinite(state.variance).all()


@pytest.mark.parametrize("accumulation", mostly_slow([1, 2]))
def test_a_skipped_step_changes_nothing_but_the_counts(accumulation):
    model, _ = tiny.make(None, num_experts=0)
    optimizer = adamw(inverse_square_root(1e-2, 10))
    step = make_train_step(model, optimizer, LossConfig(), StepOptions(accumulation))
    state = make_state(model, optimizer, 0)
    batch = tiny.make_batch(4, 8)
    state, metrics = step(state, batch)
    assert int(metrics["skipped"]) == 0
    poisoned = dataclasses.replace(
        batch, weights_BS=np.where(np.arange(8) == 3, np.nan, batch.weights_BS).astype(np.float32)
    )
    before = jax.device_get((state.variables, state.optimizer_state))
    state, metrics = step(state, poisoned)
    assert int(state.step) == 2
    assert [int(metrics[f"skipped{of}"]) for of in ("", "_in_row", "_total")] == [1, 1, 1]
    after = jax.device_get((state.variables, state.optimizer_state))
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old, new)
    state, metrics = step(state, batch)
    assert [int(metrics[f"skipped{of}"]) for of in ("", "_in_row", "_total")] == [0, 0, 1]
    moved = jax.device_get(state.variables.params)
    assert any((moved[name] != before[0].params[name]).any() for name in moved)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"spike": -1}, "Guard.spike"), ({"window": 0}, "Guard.window"), ({"limit": -1}, "limit")],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        GuardConfig(**change)
