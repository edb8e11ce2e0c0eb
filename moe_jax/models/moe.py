"""The mixture-of-experts layer: score, route, dispatch, combine."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.few_tokens import few_tokens
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig
from moe_jax.models.dropout import NO_DROPOUT, LayerDropout
from moe_jax.models.feed_forward import Experts, FeedForward
from moe_jax.models.layer_routing import MoEInputs, Routing, RoutingContext
from moe_jax.models.parameters import RouterStateVariable, kernel
from moe_jax.models.sharded_moe import ShardedMoE
from moe_jax.routing.router import Router
from moe_jax.routing.scores import router_logits
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.types import ActivationsBSD, ScoresBSE


class MixtureOfExperts(nnx.Module):
    """A mixture-of-experts layer: a router, E experts, and optional shared experts.

    Attributes:
        router: the router; it can be replaced by another that reads the same state
            (`LanguageModel.with_router`).
        has_few_tokens: dispatch by `few_tokens`; set by `Decoder.set_decoding`.
    """

    def __init__(
        self,
        config: ModelConfig,
        router: Router,
        rngs: nnx.Rngs,
        partition: Partition = SINGLE_DEVICE,
    ):
        width, num_experts = config.d_model, config.num_experts
        learned = router.is_learned
        axes = ("router", "router")
        self.router_kernel = kernel(rngs, (width, num_experts), axes, width) if learned else None
        self.experts = Experts(config, rngs)
        shared = config.num_shared_experts
        self.shared = FeedForward(config.shared_expert(), rngs) if shared else None
        self.router_state = nnx.Dict(
            {name: RouterStateVariable(v) for name, v in router.init_state(num_experts).items()}
        )
        self.router = router
        self.num_experts = num_experts
        self.dispatch = config.dispatch
        self.has_few_tokens = False
        self.partition = partition

    def __call__(
        self,
        x_BSD: ActivationsBSD,
        batch: BatchContext,
        context: RoutingContext,
        dropout: LayerDropout = NO_DROPOUT,
    ) -> tuple[ActivationsBSD, Routing]:
        """Returns the combined expert outputs (0 for tokens without an expert) and `Routing`."""
        # 0 times what is not finite is not a number: an unfilled slot would pass it on.
        x_BSD = jnp.where(batch.mask_BS[..., None], x_BSD, 0)
        with jax.named_scope("router"):
            logits_BSE = self._logits(x_BSD, context)
        inputs = MoEInputs(
            x_BSD=x_BSD,
            logits_BSE=logits_BSE,
            batch=batch,
            context=context,
            state={name: variable[...] for name, variable in self.router_state.items()},
            experts=self.experts.network(x_BSD.dtype, dropout),
            router=self.router,
        )
        y_BSD, routing = self._routed(inputs)
        if context.keeps_scores:
            routing = dataclasses.replace(routing, score_BSE=jax.nn.softmax(logits_BSE, axis=-1))
        y_BSD = checkpoint_name(y_BSD, "moe_out")
        if self.shared is not None:
            with jax.named_scope("shared_experts"):
                y_BSD = y_BSD + self.shared(x_BSD, dropout)
        return y_BSD, routing

    def _logits(self, x_BSD: ActivationsBSD, context: RoutingContext) -> ScoresBSE:
        if self.router_kernel is None:
            return jnp.zeros((*x_BSD.shape[:2], self.num_experts), jnp.float32)
        _, jitter_key = context.keys()
        return router_logits(x_BSD, self.router_kernel[...], self.router.input_jitter, jitter_key)

    def _routed(self, inputs: MoEInputs) -> tuple[ActivationsBSD, Routing]:
        if self.partition.is_sharded:
            return ShardedMoE(self.partition, self.dispatch)(inputs)
        pool, (batch, length, _) = self.router.pool, inputs.x_BSD.shape
        with jax.named_scope("router"):
            routed = self.router(inputs.scores(), inputs.state)
        with jax.named_scope("dispatch"):
            dispatch = few_tokens if self.has_few_tokens else get_dispatch(self.dispatch)
            y_PND = dispatch(routed.assignment, pool.split(inputs.x_BSD), inputs.experts)
            y_BSD = pool.join(y_PND, batch, length)
        return y_BSD, inputs.routing(routed, batch)
