"""Learning-rate schedules: functions from the step (0 for the first) to the learning rate."""

from typing import Annotated

import jax.numpy as jnp
import optax

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Count, Decay, Positive, PositiveInt, Share


@configurable("InverseSquareRoot")
def inverse_square_root(
    scale: Positive = 1.0, constant_steps: PositiveInt = 10_000
) -> optax.Schedule:
    """Returns scale / sqrt(max(step, constant_steps)).

    With the defaults it is 0.01 for 10,000 steps, then step^-0.5, which is the paper's "constant
    for the first 10K steps, then inverse square root" as implemented for GLaM.
    Source: Zhou et al. 2022, section 4.1; Shazeer and Stern 2018.
    """
    return lambda step: scale * jnp.maximum(jnp.float32(constant_steps), step) ** -0.5


@configurable("WarmupCosine")
def warmup_cosine(
    peak: Positive,
    total_steps: PositiveInt,
    warmup_steps: Annotated[Count | None, "to take WarmupCosine.warmup_fraction"] = None,
    final_fraction: Share = 0.1,
    warmup_fraction: Decay = 0.0,
) -> optax.Schedule:
    """Returns a linear warm-up to `peak` followed by a cosine decay to `final_fraction * peak`.

    The warm-up starts at peak / warmup_steps, since a rate of 0 would waste the first step.

    Args:
        peak: the highest rate.
        total_steps: the step at which the decay ends, usually the last step of training.
        warmup_steps: steps until the peak; None to use `warmup_fraction`.
        final_fraction: the final rate relative to the peak.
        warmup_fraction: warm-up as a fraction of all steps, rounded to whole steps; used if
            `warmup_steps` is None.
    """
    if warmup_steps is None:
        warmup_steps = min(round(warmup_fraction * total_steps), total_steps - 1)
    if warmup_steps >= total_steps:
        raise UserError(
            f"WarmupCosine.warmup_steps = {warmup_steps} must be below WarmupCosine.total_steps = "
            f"{total_steps}: train for more steps (STEPS, in the package's files), or give fewer "
            "for the warm-up (WarmupCosine.warmup_steps)"
        )
    cosine = optax.warmup_cosine_decay_schedule(
        init_value=peak / max(warmup_steps, 1),
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
        end_value=peak * final_fraction,
    )
    return cosine
