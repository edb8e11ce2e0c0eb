"""Layers, and groups of one mixture-of-experts layer and the dense layers after it."""

import jax
from flax import nnx

from moe_jax.models.attention import Attention
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig
from moe_jax.models.dropout import LayerDropout, Site
from moe_jax.models.feed_forward import FeedForward
from moe_jax.models.key_value_cache import KeyValueCache
from moe_jax.models.layer_routing import Routing, RoutingContext
from moe_jax.models.moe import MixtureOfExperts
from moe_jax.models.normalization import RMSNorm
from moe_jax.routing.router import Router
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.types import ActivationsBSD


class Layer(nnx.Module):
    """A pre-norm transformer layer: attention and feed-forward with residual connections."""

    def __init__(
        self,
        config: ModelConfig,
        router: Router | None,
        rngs: nnx.Rngs,
        partition: Partition = SINGLE_DEVICE,
    ):
        self.attention_norm = RMSNorm(config.d_model)
        self.attention = Attention(config, rngs, partition)
        self.ffn_norm = RMSNorm(config.d_model)
        self.ffn: FeedForward | MixtureOfExperts
        if router is None:
            self.ffn = FeedForward(config, rngs)
        else:
            self.ffn = MixtureOfExperts(config, router, rngs, partition)
        self.partition = partition

    def __call__(
        self,
        x_BSD: ActivationsBSD,
        batch: BatchContext,
        contexts: tuple[RoutingContext, LayerDropout],
        cache: KeyValueCache | None,
    ) -> tuple[ActivationsBSD, Routing | None, KeyValueCache | None]:
        """Returns the residual stream, the routing (None if dense), and new cache entries."""
        context, dropout = contexts
        with jax.named_scope("attention"):
            update, cache = self.attention(self.attention_norm(x_BSD), batch, cache)
            update = dropout.units(update, Site.ATTENTION)
            x_BSD = self.partition.constrain_rows(x_BSD + update)
        if isinstance(self.ffn, FeedForward):
            with jax.named_scope("feed_forward"):
                update = self.ffn(self.ffn_norm(x_BSD), dropout)
                update = dropout.units(update, Site.FEED_FORWARD)
                return self.partition.constrain_rows(x_BSD + update), None, cache
        with jax.named_scope("moe"):
            update, routing = self.ffn(self.ffn_norm(x_BSD), batch, context, dropout)
            update = dropout.units(update, Site.FEED_FORWARD)
            return self.partition.constrain_rows(x_BSD + update), routing, cache


class LayerGroup(nnx.Module):
    """The repeated group of layers; its first layer is the mixture of experts, if there is one."""

    def __init__(
        self,
        config: ModelConfig,
        router: Router | None,
        rngs: nnx.Rngs,
        partition: Partition = SINGLE_DEVICE,
    ):
        self.config = config
        dense = config.period - (1 if config.num_experts else 0)
        routers = [router] * (config.period - dense) + [None] * dense
        self.layers = nnx.List([Layer(config, r, rngs, partition) for r in routers])

    def __call__(
        self,
        x_BSD: ActivationsBSD,
        batch: BatchContext,
        context: RoutingContext,
        caches: list[KeyValueCache] | None,
    ) -> tuple[ActivationsBSD, Routing, list[KeyValueCache] | None]:
        """Applies the layers in order; `caches` has one cache per layer, or is None.

        Returns the residual stream, the routing, and the cache entries of these positions.
        """
        routing, new_caches = Routing(), []
        for index, layer in enumerate(self.layers):
            cache = caches[index] if caches is not None else None
            dropout = LayerDropout.of(self.config, context.key, index)
            x_BSD, of_layer, cache = layer(x_BSD, batch, (context, dropout), cache)
            routing = of_layer or routing
            if cache is not None:
                new_caches.append(cache)
        return x_BSD, routing, new_caches or None
