"""Updates that are better not made: what is not finite, or far off its mean.

Loss and gradient are judged, and what the update made of them: new parameters, optimiser state and
router state. The decision is made on the devices, in the step itself, so that it costs no waiting.
The data go on; parameters, optimiser and router state stay as they were.
"""

import dataclasses
import enum
from typing import Annotated

import jax
import jax.numpy as jnp

from moe_jax.settings import PositiveInt, Range, Settings, counted

# What the moving means take in at most, so that their squares stay finite.
_LARGEST = 1e18


class SkipReason(enum.IntEnum):
    """Why an update is skipped, the metric `skip_reason`; the first that holds."""

    NONE = 0
    LOSS = 1
    GRADIENT = 2
    UPDATE = 3
    ROUTER = 4
    SPIKE = 5


@dataclasses.dataclass(frozen=True)
class GuardConfig(Settings, called="Guard"):
    """When an update is skipped, and when training stops.

    Attributes:
        spike: skip where the loss or the gradient norm exceeds its moving mean by more than so
            many moving standard deviations (OLMo uses 6); 0 skips only what is not finite.
        window: steps that the moving mean and deviation remember; for so many steps at the start
            nothing counts as a spike.
        limit: updates skipped in a row after which training stops; 0 for never.
    """

    spike: Annotated[float, Range(least=0, zero="off")] = 0.0
    window: PositiveInt = 128
    limit: Annotated[int, counted("never")] = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GuardState:
    """What the guard remembers; all scalars, [2] for loss and gradient norm.

    Attributes:
        mean: moving means, float32.
        variance: moving variances around them, float32.
        seen: updates made, int32.
        skipped: updates skipped in all, int32.
        in_row: updates skipped since the last that was made, int32.
    """

    mean: jax.Array
    variance: jax.Array
    seen: jax.Array
    skipped: jax.Array
    in_row: jax.Array


def make_guard() -> GuardState:
    """Returns the state before the first step."""
    # Arrays of their own: the step takes over each.
    moments = (jnp.zeros(2, jnp.float32) for _ in range(2))
    counts = (jnp.zeros((), jnp.int32) for _ in range(3))
    return GuardState(*moments, *counts)


def decide_skip(
    config: GuardConfig,
    state: GuardState,
    loss: jax.Array,
    gradient_norm: jax.Array,
    update_is_finite: jax.Array | bool = True,
    router_is_finite: jax.Array | bool = True,
) -> tuple[jax.Array, GuardState]:
    """Returns why the update is skipped, a `SkipReason` as an int32 scalar, and the state after it.

    The moving mean takes in a spike only up to its bound, so that a lasting change of the loss is
    accepted in the end and a single spike hardly counts; and nothing of an update that is skipped
    because something is not finite.

    Args:
        config: which updates are skipped.
        state: before this update.
        loss: of the batch.
        gradient_norm: of its gradient.
        update_is_finite: whether the new parameters and optimiser state are finite.
        router_is_finite: whether the new router state is.
    """
    values = jnp.stack([loss, gradient_norm]).astype(jnp.float32)
    finite = jnp.stack([*jnp.isfinite(values), update_is_finite, router_is_finite])
    is_finite = jnp.all(finite)
    values = jnp.clip(values, -_LARGEST, _LARGEST)
    bound = state.mean + config.spike * jnp.sqrt(state.variance)
    settled = state.seen + state.skipped >= config.window
    is_spike = settled & jnp.any(values > bound) if config.spike else jnp.zeros((), jnp.bool_)
    # The reasons in their order, of which the first that holds is the answer.
    holds = jnp.stack([*~finite, is_spike])
    first = jnp.argmax(holds).astype(jnp.int32) + SkipReason.LOSS
    ok = ~jnp.any(holds)
    reason = jnp.where(ok, jnp.int32(SkipReason.NONE), first)
    taken = jnp.where(settled & bool(config.spike), jnp.minimum(values, bound), values)
    # As in a mean over the first steps, then over the window.
    weight = 1.0 / jnp.minimum(state.seen + 1, config.window)
    difference = taken - state.mean
    mean = state.mean + weight * difference
    variance = (1 - weight) * (state.variance + weight * jnp.square(difference))
    one = jnp.ones((), jnp.int32)
    return reason, GuardState(
        mean=jnp.where(is_finite, mean, state.mean),
        variance=jnp.where(is_finite, variance, state.variance),
        seen=state.seen + jnp.where(ok, one, 0),
        skipped=state.skipped + jnp.where(ok, 0, one),
        in_row=jnp.where(ok, 0, state.in_row + one),
    )
