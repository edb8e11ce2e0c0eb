"""Router logits from activations, always in float32."""

import jax
import jax.numpy as jnp

from moe_jax.types import ActivationsPND, KernelDE, ScoresPNE


def router_logits(
    x_PND: ActivationsPND,
    kernel_DE: KernelDE,
    jitter: float = 0.0,
    key: jax.Array | None = None,
) -> ScoresPNE:
    """Computes the logits of every token for every expert, X W_g.

    The matrix product and everything after it are computed in float32 at the highest precision,
    whatever the compute precision of the model: routing in bfloat16 diverges or changes choices
    (Fedus et al. 2021, 2.4). Source: Zhou et al. 2022, section 3.2, eq. 2 (the same scores as
    Switch and GShard).

    Args:
        x_PND: activations.
        kernel_DE: the router matrix.
        jitter: if there is a key, the activations are first multiplied by
            U(1 - jitter, 1 + jitter), quantized to 256 values (Switch).
        key: random key in training; None otherwise.
    """
    x_PND = x_PND.astype(jnp.float32)
    if jitter and key is not None:
        x_PND = x_PND * (1.0 + jitter * _symmetric_noise(key, x_PND.shape))
    return jnp.einsum(
        "pnd,de->pne",
        x_PND,
        kernel_DE.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )


def _symmetric_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uniform noise in (-1, 1) with 256 values: four numbers from each random word."""
    words = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // 4)), jnp.uint32)
    bits = jax.lax.bitcast_convert_type(words, jnp.uint8)
    bits = bits.reshape(*shape[:-1], -1)[..., : shape[-1]].astype(jnp.float32)
    return (bits + 0.5) * 2.0**-7 - 1.0
