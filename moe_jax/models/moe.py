"""The mixture-of-experts layer: score, route, dispatch, combine."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.models.config import ModelConfig
from moe_jax.models.feed_forward import Experts, FeedForward
from moe_jax.models.layer_inputs import (
    LayerInputs,
    LayerRows,
    RoutedTokens,
    Routing,
    router_scores,
    routing_of,
)
from moe_jax.models.parameters import RouterStateVariable, kernel
from moe_jax.models.routing_over_mesh import RoutingOverMesh
from moe_jax.routing.router import Router, RouterState
from moe_jax.routing.scores import router_logits
from moe_jax.sharding.partition import Partition
from moe_jax.types import ActivationsBSD


class MixtureOfExperts(nnx.Module):
    """Replaces a feed-forward layer by a router, E experts, and experts that tokens share."""

    def __init__(
        self,
        config: ModelConfig,
        router: Router,
        rngs: nnx.Rngs,
        partition: Partition | None = None,
    ):
        width, experts = config.d_model, config.num_experts
        learned = router.is_learned
        axes = ("router", "router")
        self.router_kernel = kernel(rngs, (width, experts), axes, width) if learned else None
        self.experts = Experts(config, rngs)
        shared = config.num_shared_experts
        self.shared = FeedForward(config.shared_expert(), rngs) if shared else None
        self.router_state = nnx.Dict(
            {name: RouterStateVariable(v) for name, v in router.init_state(experts).items()}
        )
        self.num_experts = experts
        self.dispatch = config.dispatch
        self.partition = partition

    def __call__(
        self, x_BSD: ActivationsBSD, known: RoutedTokens, inputs: LayerInputs, router: Router
    ) -> tuple[ActivationsBSD, Routing]:
        """Returns the experts' weighted outputs (0 for tokens without an expert) and `Routing`."""
        with jax.named_scope("router"):
            rows = LayerRows(x_BSD, self._logits(x_BSD, inputs, router), known)
        state = {name: variable[...] for name, variable in self.router_state.items()}
        experts = self.experts.network(x_BSD.dtype)
        y_BSD, routing = self._routed(rows, inputs, router, state, experts)
        y_BSD = checkpoint_name(y_BSD, "moe_out")
        if self.shared is not None:
            with jax.named_scope("shared_experts"):
                y_BSD = y_BSD + self.shared(x_BSD)
        return y_BSD, routing

    def _logits(self, x_BSD: jax.Array, inputs: LayerInputs, router: Router) -> jax.Array:
        if self.router_kernel is None:
            return jnp.zeros((*x_BSD.shape[:2], self.num_experts), jnp.float32)
        _, jitter_key = inputs.keys()
        return router_logits(x_BSD, self.router_kernel[...], router.input_jitter, jitter_key)

    def _routed(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        router: Router,
        state: RouterState,
        experts: ExpertNetwork,
    ) -> tuple[jax.Array, Routing]:
        if self.partition is not None:
            over_mesh = RoutingOverMesh(self.partition, self.dispatch)
            return over_mesh(rows, inputs, router, state, experts)
        with jax.named_scope("router"):
            routed = router(router_scores(router, rows, inputs), state)
        with jax.named_scope("dispatch"):
            dispatch = get_dispatch(self.dispatch)
            y_PND = dispatch(routed.assignment, router.pool.split(rows.x_BSD), experts)
            y_BSD = router.pool.join(y_PND, *rows.x_BSD.shape[:2])
        return y_BSD, routing_of(routed, router.pool, inputs, *rows.x_BSD.shape[:2])
