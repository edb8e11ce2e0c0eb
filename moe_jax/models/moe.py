"""The mixture-of-experts layer: score, route, dispatch, combine."""

import dataclasses

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import get_dispatch
from moe_jax.models.config import ModelConfig
from moe_jax.models.feed_forward import Experts
from moe_jax.models.parameters import RouterStateVariable, kernel
from moe_jax.routing.router import Router
from moe_jax.routing.scores import router_scores
from moe_jax.types import ActivationsBSD, MaskBS


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


class MixtureOfExperts(nnx.Module):
    """Replaces a feed-forward layer by E experts and a router."""

    def __init__(self, config: ModelConfig, router: Router, rngs: nnx.Rngs):
        width, experts = config.d_model, config.num_experts
        self.router_kernel = kernel(rngs, (width, experts), ("embed", "experts_router"), width)
        self.experts = Experts(config, rngs)
        self.router_state = nnx.Dict(
            {name: RouterStateVariable(v) for name, v in router.init_state(experts).items()}
        )
        self.dispatch = config.dispatch

    def __call__(
        self, x_BSD: ActivationsBSD, mask_BS: MaskBS, router: Router
    ) -> tuple[ActivationsBSD, Routing]:
        """Returns the experts' weighted outputs (0 for tokens without an expert) and `Routing`."""
        batch, length, _ = x_BSD.shape
        x_PND = router.pool.split(x_BSD)
        mask_PN = router.pool.split(mask_BS)
        with jax.named_scope("router"):
            scores = router_scores(x_PND, self.router_kernel[...], mask_PN)
            state = {name: variable[...] for name, variable in self.router_state.items()}
            routed = router(scores, state)
        with jax.named_scope("dispatch"):
            y_PND = get_dispatch(self.dispatch)(routed.assignment, x_PND, self._experts)
            y_BSD = checkpoint_name(router.pool.join(y_PND, batch, length), "moe_out")
        return y_BSD, Routing(routed.losses, routed.metrics, routed.statistics)

    def _experts(self, x_ERD: jax.Array) -> jax.Array:
        with jax.named_scope("experts"):
            return self.experts(checkpoint_name(x_ERD, "moe_in"))
