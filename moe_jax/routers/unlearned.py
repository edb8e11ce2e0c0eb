"""Base classes of routers without a router matrix, and their random numbers.

The weight of a chosen expert is 1 / k; there is no router gradient. Outside of training, where
there is no random key, random numbers are a hash of the token's id and position, so that decoding
token by token makes the same choices as a forward pass over the whole text.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.errors import UserError
from moe_jax.routing.assignment import Pairs, RouterOutput, RouterScores
from moe_jax.routing.metrics import health
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Router
from moe_jax.settings import PositiveInt
from moe_jax.types import IndexPNK


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnlearnedRouter(Router):
    """A causal router without a router matrix or capacity, and by default without state."""

    pool: Pool = dataclasses.field(default_factory=lambda: Pool("sequence"))

    is_causal = True
    is_learned = False

    def _output(self, expert_PNK: IndexPNK, scores: RouterScores) -> RouterOutput:
        chosen_PNK = jnp.broadcast_to(scores.mask_PN[..., None], expert_PNK.shape)
        pairs = Pairs(
            expert_index_PNK=expert_PNK.astype(jnp.int32),
            weight_PNK=chosen_PNK.astype(jnp.float32) / expert_PNK.shape[-1],
            chosen_PNK=chosen_PNK,
            num_experts=scores.logits_PNE.shape[-1],
        )
        return RouterOutput(pairs, losses={}, metrics=health(pairs, scores), statistics={})


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedNumberOfExperts(UnlearnedRouter):
    """A router with a fixed number of experts per token, k."""

    k: PositiveInt = 1

    @property
    def experts_per_token(self) -> float:
        """The setting k."""
        return float(self.k)

    def check(self, batch: int, length: int, experts: int) -> None:
        """Checks that k is at most the number of experts."""
        super().check(batch, length, experts)
        if self.k > experts:
            raise UserError(
                f"{type(self).__name__}.k = {self.k} is more than the {experts} experts"
            )


def random_numbers(scores: RouterScores, shape: tuple[int, ...]) -> jax.Array:
    """Returns numbers [P, ...] in [0, 1), from the key or, without one, token ids and positions."""
    if scores.key is not None:
        return jax.vmap(lambda key: jax.random.uniform(key, shape[1:]))(scores.pool_keys())
    assert scores.tokens_PN is not None
    assert scores.positions_PN is not None
    mixed_PN = scores.tokens_PN.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
    mixed_PN = _mix(mixed_PN ^ scores.positions_PN.astype(jnp.uint32))
    column = jnp.arange(shape[-1], dtype=jnp.uint32) * jnp.uint32(0x85EBCA77)
    return (_mix(mixed_PN[..., None] ^ column) >> 8).astype(jnp.float32) * 2.0**-24


def _mix(x: jax.Array) -> jax.Array:
    """Mixes the bits of 32-bit integers (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
