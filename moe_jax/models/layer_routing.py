"""The inputs and outputs of the routing of one mixture-of-experts layer."""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.models.batch_context import BatchContext
from moe_jax.routing.assignment import RouterOutput, RouterScores
from moe_jax.routing.metrics import routed_counts
from moe_jax.routing.router import Router, RouterState
from moe_jax.types import ActivationsBSD, MaskBSE, ScoresBSE, TokensBS, VectorE, VectorLE


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RoutingContext:
    """Random key and options of routing; as input of a model, arrays are stacked over the layers.

    Attributes:
        key: random key in training; None otherwise.
        share_E: see `moe_jax.routing.assignment.RouterScores`.
        counts_experts: return the number of experts of every token (static).
        keeps_choices: return the weight of every token for every expert (static).
        keeps_scores: return the probability of every token for every expert (static).
    """

    key: jax.Array | None = None
    share_E: VectorE | VectorLE | None = None
    counts_experts: bool = dataclasses.field(default=False, metadata={"static": True})
    keeps_choices: bool = dataclasses.field(default=False, metadata={"static": True})
    keeps_scores: bool = dataclasses.field(default=False, metadata={"static": True})

    def keys(self) -> tuple[jax.Array | None, jax.Array | None]:
        """Returns the random key of the router and that of the jitter on its input."""
        if self.key is None:
            return None, None
        router_key, jitter_key = jax.random.split(self.key)
        return router_key, jitter_key


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
    """Auxiliary outputs of routing, by name; as output of a model, stacked over the layers.

    Attributes:
        losses: unscaled auxiliary losses.
        metrics: routing metrics (`moe_jax.routing.metrics`).
        statistics: inputs of the update of the router's state.
        experts_BS: number of experts of each token, int32; None unless
            `RoutingContext.counts_experts`.
        weight_BSE: combine weight of each token for each expert, 0 where it is not chosen; None
            unless `RoutingContext.keeps_choices`.
        chosen_BSE: true where the token is routed to the expert; None unless `keeps_choices`.
        score_BSE: the softmax of the router logits over the experts; None unless `keeps_scores`.
    """

    losses: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    statistics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    experts_BS: TokensBS | None = None
    weight_BSE: ScoresBSE | None = None
    chosen_BSE: MaskBSE | None = None
    score_BSE: ScoresBSE | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MoEInputs:
    """The inputs of routing and dispatch in one layer.

    Attributes:
        x_BSD: activations.
        logits_BSE: the router logits, float32.
        batch: the tokens of the activations.
        context: random key and options.
        state: state of the router in this layer.
        experts: networks of the experts.
        router: the router (static).
    """

    x_BSD: ActivationsBSD
    logits_BSE: ScoresBSE
    batch: BatchContext
    context: RoutingContext
    state: RouterState
    experts: ExpertNetwork
    router: Router = dataclasses.field(metadata={"static": True})

    def scores(self, first_pool: jax.Array | int = 0, axes: tuple[str, ...] = ()) -> RouterScores:
        """Returns the router scores by pool.

        Args:
            first_pool: see `RouterScores`.
            axes: see `RouterScores`.
        """
        return router_scores(
            self.router, self.logits_BSE, self.batch, self.context, first_pool, axes
        )

    def routing(self, routed: RouterOutput, batch: int) -> Routing:
        """Returns the auxiliary outputs of routing `batch` rows."""
        pool, length = self.router.pool, self.x_BSD.shape[1]
        _, tokens = pool.shape(batch, length)
        experts_BS = weight_BSE = chosen_BSE = None
        if self.context.counts_experts:
            num_experts = routed.assignment.num_experts
            per_token_PN, _ = routed_counts(routed.assignment, tokens, num_experts)
            experts_BS = pool.join(per_token_PN[..., None], batch, length)[..., 0]
        if self.context.keeps_choices:
            choices = routed.assignment.dense(tokens)
            weight_BSE, chosen_BSE = (pool.join(a, batch, length) for a in choices)
        auxiliary = (routed.losses, routed.metrics, routed.statistics)
        return Routing(*auxiliary, experts_BS, weight_BSE, chosen_BSE)


def router_scores(
    router: Router,
    logits_BSE: ScoresBSE,
    batch: BatchContext,
    context: RoutingContext,
    first_pool: jax.Array | int = 0,
    axes: tuple[str, ...] = (),
) -> RouterScores:
    """Returns the scores of a router's pools.

    Args:
        router: the rule, whose pools they are.
        logits_BSE: its raw outputs.
        batch: the tokens that they belong to.
        context: random key and shares.
        first_pool: see `RouterScores`.
        axes: see `RouterScores`.
    """
    split = router.pool.split
    time_BS = jnp.broadcast_to(
        jnp.arange(batch.mask_BS.shape[1], dtype=jnp.int32), batch.mask_BS.shape
    )
    return RouterScores.from_logits(
        split(logits_BSE),
        split(batch.mask_BS),
        tokens_PN=split(batch.tokens_BS),
        positions_PN=split(batch.positions_BS),
        time_PN=split(time_BS),
        key=context.keys()[0],
        share_E=context.share_E,
        first_pool=first_pool,
        axes=axes,
    )
