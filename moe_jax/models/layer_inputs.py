"""What goes into the routing of a layer beside the activations, and what comes out of it."""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.metrics import routed_counts
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Router
from moe_jax.types import ActivationsBSD, MaskBS, TokensBS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
    """What routing leaves behind, by name; in a model's output with the layers in front.

    Attributes:
        losses: unscaled auxiliary losses.
        metrics: health of the routing (`moe_jax.routing.metrics`).
        statistics: what the router's state is updated from.
        experts_BS: how many experts took each token, int32; None unless `LayerInputs.counts`.
    """

    losses: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    statistics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    experts_BS: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoutedTokens:
    """What routing may know beside the activations, the same in every layer.

    Attributes:
        tokens_BS: input tokens.
        positions_BS: their positions in their documents.
        mask_BS: false for padding.
    """

    tokens_BS: TokensBS
    positions_BS: TokensBS
    mask_BS: MaskBS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerRows:
    """Rows of a batch as a layer routes them.

    Attributes:
        x_BSD: activations.
        logits_BSE: the router's raw outputs, float32.
        known: what else it may know of them.
    """

    x_BSD: ActivationsBSD
    logits_BSE: jax.Array
    known: RoutedTokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerInputs:
    """What routing may know in one layer; for a model with the layers in front.

    Attributes:
        key: random key while training, None outside of it.
        share_E: `moe_jax.routing.assignment.RouterScores.share_E`.
        counts: whether to count the experts of every token (static).
    """

    key: jax.Array | None = None
    share_E: jax.Array | None = None
    counts: bool = dataclasses.field(default=False, metadata={"static": True})

    def keys(self) -> tuple[jax.Array | None, jax.Array | None]:
        """Returns the key of the router's draws and the key of the jitter on its input."""
        if self.key is None:
            return None, None
        router_key, jitter_key = jax.random.split(self.key)
        return router_key, jitter_key


def routing_of(
    routed: RouterOutput, pool: Pool, inputs: LayerInputs, batch: int, length: int
) -> Routing:
    """Returns what a router leaves behind of a batch of [batch, length] tokens."""
    experts_BS = None
    if inputs.counts:
        _, tokens = pool.shape(batch, length)
        per_token_PN, _ = routed_counts(routed.assignment, tokens, routed.assignment.num_experts)
        experts_BS = pool.join(per_token_PN[..., None], batch, length)[..., 0]
    return Routing(routed.losses, routed.metrics, routed.statistics, experts_BS)


def router_scores(
    router: Router,
    rows: LayerRows,
    inputs: LayerInputs,
    first_pool: jax.Array | int = 0,
    axes: tuple[str, ...] = (),
) -> RouterScores:
    """Returns the scores of a router's pools.

    Args:
        router: its pool says how the rows are cut.
        rows: those that are here.
        inputs: of the layer.
        first_pool: see `RouterScores`.
        axes: see `RouterScores`.
    """
    split = router.pool.split
    logits_PNE, known = split(rows.logits_BSE), rows.known
    batch_length = known.mask_BS.shape
    time_BS = jnp.broadcast_to(jnp.arange(batch_length[1], dtype=jnp.int32), batch_length)
    return RouterScores(
        logits_PNE=logits_PNE,
        probabilities_PNE=jax.nn.softmax(logits_PNE, axis=-1),
        mask_PN=split(known.mask_BS),
        tokens_PN=split(known.tokens_BS),
        positions_PN=split(known.positions_BS),
        time_PN=split(time_BS),
        key=inputs.keys()[0],
        share_E=inputs.share_E,
        first_pool=first_pool,
        axes=axes,
    )
