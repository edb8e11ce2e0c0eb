"""Learning-rate schedules: functions from the step (0 for the first) to the rate."""

import jax.numpy as jnp
import optax

from moe_jax.errors import UserError


def inverse_square_root(scale: float = 1.0, constant_steps: int = 10_000) -> optax.Schedule:
    """Returns scale / sqrt(max(step, constant_steps)).

    With the defaults 0.01 for 10,000 steps, then step^-0.5: what the paper's "constant for the
    first 10K steps, then inverse square root" is in GLaM's code.
    Source: Zhou et al. 2022, section 4.1; Shazeer and Stern 2018.
    """
    if constant_steps < 1:
        raise UserError(f"InverseSquareRoot.constant_steps must be above 0, not {constant_steps}")
    return lambda step: scale * jnp.maximum(jnp.float32(constant_steps), step) ** -0.5


def warmup_cosine(
    peak: float, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.1
) -> optax.Schedule:
    """Returns a linear warm-up to `peak`, then half a cosine to `final_fraction * peak`.

    The warm-up starts at peak / warmup_steps: with a rate of 0 the first step would be wasted.
    """
    if not 0 <= warmup_steps < total_steps:
        raise UserError(
            f"WarmupCosine.warmup_steps = {warmup_steps} must be at least 0 and below "
            f"total_steps = {total_steps}"
        )
    cosine = optax.warmup_cosine_decay_schedule(
        init_value=peak / max(warmup_steps, 1),
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=total_steps,
        end_value=peak * final_fraction,
    )
    return cosine
