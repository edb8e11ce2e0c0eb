"""Dropout of a layer, in training steps only.

A mask is a function of the key of the layer alone, so that it is the same on every mesh, for every
dispatch, and when a layer is recomputed in the backward pass. As in T5, a mask is shared by the
positions of a row: it has the shape [B, 1, D]. That of the experts' hidden units has the shape
[E, 1, F], shared by all tokens of an expert, and is applied to their second matrix, which is the
same as dropping the hidden units. Every dispatch then computes with ordinary weights.
Source: Raffel et al. 2020, 3.1.2; Fedus et al. 2022, 2.4 (expert dropout).
"""

import dataclasses
import enum

import jax
import jax.numpy as jnp

from moe_jax.models.config import ModelConfig
from moe_jax.types import ActivationsBSD, WeightEDF


class Site(enum.IntEnum):
    """The places in a model where units are dropped; each has masks of its own."""

    EMBEDDING = 0
    ATTENTION = 1
    HIDDEN = 2
    FEED_FORWARD = 3
    EXPERTS = 4


# Routers take the first numbers of the same key: see `RoutingContext.keys`.
_FIRST = 1 << 16


def drop(
    x: jax.Array, rate: float, key: jax.Array | None, number: int, shared: int = -2
) -> jax.Array:
    """Returns `x` with units dropped at random and the others divided by the share that is kept.

    Args:
        x: activations or weights.
        rate: probability that a unit is dropped; with 0, `x` is returned.
        key: the random key; without one, `x` is returned.
        number: tells the masks of one key apart.
        shared: the axis along which all elements have the same mask.
    """
    if not rate or key is None:
        return x
    shape = list(x.shape)
    shape[shared] = 1
    kept = jax.random.bernoulli(jax.random.fold_in(key, _FIRST + number), 1 - rate, tuple(shape))
    # In float32: 1 / (1 - rate) rounded to bfloat16 would change the expectation.
    scale = jnp.where(kept, jnp.float32(1 / (1 - rate)), 0)
    return (x.astype(jnp.float32) * scale).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class LayerDropout:
    """The dropout of one layer.

    Attributes:
        rate: `Model.dropout`.
        expert_rate: `Model.expert_dropout`.
        key: the key of the layer's group; None outside of training.
        layer: number of the layer in its group.
    """

    rate: float = 0.0
    expert_rate: float = 0.0
    key: jax.Array | None = None
    layer: int = 0

    @classmethod
    def of(cls, config: ModelConfig, key: jax.Array | None, layer: int) -> "LayerDropout":
        """Returns the dropout of a layer of a model."""
        return cls(config.dropout, config.expert_dropout, key, layer)

    def units(self, x_BSD: ActivationsBSD, site: Site) -> ActivationsBSD:
        """Drops units of activations [B, S, width], the same at all positions of a row."""
        return drop(x_BSD, self.rate, self.key, self._number(site))

    def expert_units(self, wo_EDF: WeightEDF) -> WeightEDF:
        """Drops hidden units of experts, given the matrices that read them."""
        return drop(wo_EDF, self.expert_rate, self.key, self._number(Site.EXPERTS))

    def _number(self, site: Site) -> int:
        return self.layer * len(Site) + site


NO_DROPOUT = LayerDropout()
