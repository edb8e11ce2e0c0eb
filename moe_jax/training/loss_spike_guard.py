"""Skip updates that are not finite or follow a loss spike.

The guard checks the loss, the gradient norm, and the results of the update: new parameters,
optimiser state and router state. The decision is made on the devices, within the training step, so
that the host need not wait. After a skipped update training continues with the next batch, and
parameters, optimiser state and router state are unchanged.
"""

import dataclasses
import enum
from typing import Annotated

import jax
import jax.numpy as jnp

from moe_jax.registration import configurable
from moe_jax.settings import PositiveInt, Range, Settings, counted

# Upper bound of the values in the moving averages, so that their squares stay finite.
_LARGEST = 1e18


class SkipReason(enum.IntEnum):
    """The reason why an update is skipped, the metric `skip_reason`; the first that applies."""

    NONE = 0
    LOSS = 1
    GRADIENT = 2
    UPDATE = 3
    ROUTER = 4
    SPIKE = 5


@configurable
@dataclasses.dataclass(frozen=True)
class GuardConfig(Settings, called="Guard"):
    """When updates are skipped, and when skipped updates end training.

    Attributes:
        spike: skip an update if the loss or the gradient norm exceeds its moving mean by more than
            this many moving standard deviations (OLMo uses 6); 0 skips only non-finite updates.
        window: window of the moving mean and deviation, in steps; no spikes are detected during
            the first `window` steps.
        limit: number of consecutive skipped updates after which training stops; 0 for never.
    """

    spike: Annotated[float, Range(least=0, zero="off")] = 0.0
    window: PositiveInt = 128
    limit: Annotated[int, counted("never")] = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GuardState:
    """Statistics that distinguish a loss spike from normal variation.

    Attributes:
        mean: moving means of loss and gradient norm, float32 [2].
        variance: moving variances around them, float32 [2].
        seen: number of updates applied, int32 scalar.
        skipped: number of updates skipped, int32 scalar.
        in_row: number of updates skipped since the last applied one, int32 scalar.
    """

    mean: jax.Array
    variance: jax.Array
    seen: jax.Array
    skipped: jax.Array
    in_row: jax.Array


def make_guard() -> GuardState:
    """Returns the state before the first step."""
    # Separate arrays, because the step donates each of them.
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
    """Decides whether to skip an update.

    The moving averages include a spike only up to its bound, so that a single spike hardly affects
    them and a lasting change of the loss is eventually accepted. They exclude non-finite updates.

    Args:
        config: which updates are skipped.
        state: the statistics before this update.
        loss: loss of the batch.
        gradient_norm: global norm of its gradient.
        update_is_finite: True if the new parameters and optimiser state are finite.
        router_is_finite: True if the new router state is finite.

    Returns:
        (reason, state): the `SkipReason` as an int32 scalar, and the statistics after this update.
    """
    values = jnp.stack([loss, gradient_norm]).astype(jnp.float32)
    finite = jnp.stack([*jnp.isfinite(values), update_is_finite, router_is_finite])
    is_finite = jnp.all(finite)
    values = jnp.clip(values, -_LARGEST, _LARGEST)
    bound = state.mean + config.spike * jnp.sqrt(state.variance)
    settled = state.seen + state.skipped >= config.window
    is_spike = settled & jnp.any(values > bound) if config.spike else jnp.zeros((), jnp.bool_)
    # In the order of `SkipReason`; the first that applies is reported.
    applies = jnp.stack([*~finite, is_spike])
    first = jnp.argmax(applies).astype(jnp.int32) + SkipReason.LOSS
    ok = ~jnp.any(applies)
    reason = jnp.where(ok, jnp.int32(SkipReason.NONE), first)
    taken = jnp.where(settled & bool(config.spike), jnp.minimum(values, bound), values)
    # A plain mean over the first steps, then an exponential one over the window.
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
