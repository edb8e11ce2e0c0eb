"""The mixture-of-experts layer: score, route, dispatch, combine."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import get_dispatch
from moe_jax.models.config import ModelConfig
from moe_jax.models.feed_forward import Experts, FeedForward
from moe_jax.models.parameters import RouterStateVariable, kernel
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.router import Router
from moe_jax.routing.scores import router_logits
from moe_jax.types import ActivationsBSD, MaskBS, ScoresPNE, TokensBS


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
    """What routing leaves behind, by name; in a model's output with the layers in front.

    Attributes:
        losses: unscaled auxiliary losses.
        metrics: health of the routing (`moe_jax.routing.metrics`).
        statistics: what the router's state is updated from.
    """

    losses: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    metrics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    statistics: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


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
class LayerInputs:
    """What routing may know in one layer; for a model with the layers in front.

    Attributes:
        key: random key while training, None outside of it.
        share_E: `moe_jax.routing.assignment.RouterScores.share_E`.
    """

    key: jax.Array | None = None
    share_E: jax.Array | None = None


class MixtureOfExperts(nnx.Module):
    """Replaces a feed-forward layer by a router, E experts, and experts that tokens share."""

    def __init__(self, config: ModelConfig, router: Router, rngs: nnx.Rngs):
        width, experts = config.d_model, config.num_experts
        learned = router.is_learned
        axes = ("embed", "experts_router")
        self.router_kernel = kernel(rngs, (width, experts), axes, width) if learned else None
        self.experts = Experts(config, rngs)
        shared = config.num_shared_experts
        self.shared = FeedForward(config.shared_expert(), rngs) if shared else None
        self.router_state = nnx.Dict(
            {name: RouterStateVariable(v) for name, v in router.init_state(experts).items()}
        )
        self.num_experts = experts
        self.dispatch = config.dispatch

    def __call__(
        self, x_BSD: ActivationsBSD, known: RoutedTokens, inputs: LayerInputs, router: Router
    ) -> tuple[ActivationsBSD, Routing]:
        """Returns the experts' weighted outputs (0 for tokens without an expert) and `Routing`."""
        batch, length, _ = x_BSD.shape
        x_PND = router.pool.split(x_BSD)
        with jax.named_scope("router"):
            scores = self._scores(x_PND, known, inputs, router)
            state = {name: variable[...] for name, variable in self.router_state.items()}
            routed = router(scores, state)
        with jax.named_scope("dispatch"):
            dispatch = get_dispatch(self.dispatch)
            y_PND = dispatch(routed.assignment, x_PND, self.experts.network(x_BSD.dtype))
            y_BSD = checkpoint_name(router.pool.join(y_PND, batch, length), "moe_out")
        if self.shared is not None:
            with jax.named_scope("shared_experts"):
                y_BSD = y_BSD + self.shared(x_BSD)
        return y_BSD, Routing(routed.losses, routed.metrics, routed.statistics)

    def _scores(
        self, x_PND: jax.Array, known: RoutedTokens, inputs: LayerInputs, router: Router
    ) -> RouterScores:
        pool, batch_length = router.pool, known.mask_BS.shape
        key, jitter_key = inputs.key, None
        if key is not None:
            key, jitter_key = jax.random.split(key)
        time_BS = jnp.broadcast_to(jnp.arange(batch_length[1], dtype=jnp.int32), batch_length)
        logits_PNE: ScoresPNE
        if self.router_kernel is None:
            logits_PNE = jnp.zeros((*x_PND.shape[:2], self.num_experts), jnp.float32)
        else:
            logits_PNE = router_logits(
                x_PND, self.router_kernel[...], router.input_jitter, jitter_key
            )
        return RouterScores(
            logits_PNE=logits_PNE,
            probabilities_PNE=jax.nn.softmax(logits_PNE, axis=-1),
            mask_PN=pool.split(known.mask_BS),
            tokens_PN=pool.split(known.tokens_BS),
            positions_PN=pool.split(known.positions_BS),
            time_PN=pool.split(time_BS),
            key=key,
            share_E=inputs.share_E,
        )
