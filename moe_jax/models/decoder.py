"""The decoder-only language model."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moe_jax.errors import UserError
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.block import LayerGroup
from moe_jax.models.config import ModelConfig
from moe_jax.models.dropout import Site, drop
from moe_jax.models.feed_forward import Experts, FeedForward
from moe_jax.models.key_value_cache import KeyValueCache
from moe_jax.models.layer_routing import Routing, RoutingContext
from moe_jax.models.moe import MixtureOfExperts
from moe_jax.models.normalization import RMSNorm
from moe_jax.models.parameters import kernel, split
from moe_jax.models.remat import rematerialise
from moe_jax.routing.router import Router
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.types import ActivationsBSD, LogitsBSV

# Parameters with one of these axes are cast to the compute precision before they are used.
_ROUNDED_AXES = {"heads", "mlp", "expert_mlp"}

# The caches of every group of layers; of scanned layers, those of one group, stacked over groups.
Caches = list[list[KeyValueCache]]
# Parameters and router state of one group of layers.
Group = tuple[nnx.State, nnx.State]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DecoderOutput:
    """The outputs of a forward pass.

    Attributes:
        hidden_BSD: final, normalised activations; `Decoder.logits` computes logits from them.
        routing: losses, metrics and statistics; the first axis is the mixture-of-experts layer.
        caches: the cache entries of the given positions, if caches were given.
    """

    hidden_BSD: ActivationsBSD
    routing: Routing
    caches: Caches | None = None


class Decoder(nnx.Module):
    """Decoder: embedding, L pre-norm layers, final norm, and logits from the shared embedding.

    The embedding has variance 1 / D; its rows are scaled by sqrt(D) at the input and used unscaled
    at the output (the shared embedding of Praxis, as in GLaM).
    """

    def __init__(
        self,
        config: ModelConfig,
        router: Router | None,
        rngs: nnx.Rngs,
        partition: Partition = SINGLE_DEVICE,
    ):
        if config.num_experts and router is None:
            raise UserError(f"a model with {config.num_experts} experts needs a router")
        self.embedding = kernel(
            rngs, (config.vocab_size, config.d_model), ("vocab", "embed"), config.d_model
        )
        self.groups = _stacked(config, router, rngs, partition)
        self.final_norm = RMSNorm(config.d_model)
        self.config = config
        self.partition = partition

    def __call__(
        self,
        batch: BatchContext,
        *,
        caches: Caches | None = None,
        context: RoutingContext | None = None,
        groups: list[Group] | None = None,
    ) -> DecoderOutput:
        """Runs the model on input tokens.

        Args:
            batch: the tokens with their positions and masks.
            caches: key-value caches to read, from `make_caches`; of length 0 at the start of rows.
            context: random key (one for all layers) and options of routing; None to route as in
                evaluation.
            groups: the arrays of the layers from `unstacked`, instead of this module's own.
        """
        config = self.config
        with jax.named_scope("embed"):
            x_BSD = self._embedding().at[batch.tokens_BS].get(mode="promise_in_bounds")
            x_BSD = (x_BSD * config.d_model**0.5).astype(config.compute_dtype)
            key = None if context is None else context.key
            x_BSD = drop(x_BSD, config.dropout, key, Site.EMBEDDING)
            x_BSD = self.partition.constrain_rows(x_BSD)
        contexts = self._of_layers(context)
        x_BSD, routing, caches = self._layers(x_BSD, batch, contexts, (caches, groups))
        with jax.named_scope("final_norm"):
            return DecoderOutput(self.final_norm(x_BSD), routing, caches)

    def set_router(self, router: Router) -> None:
        """Replaces the router of all layers with one that can read the same state."""
        for layer in self.groups.layers:
            if isinstance(layer.ffn, MixtureOfExperts):
                layer.ffn.router = router

    def set_decoding(self) -> None:
        """Makes all layers read the arrays of `moe_jax.models.decoding.LaidOut`."""
        for _, module in nnx.iter_modules(self.groups):
            if isinstance(module, MixtureOfExperts):
                module.has_few_tokens = module.dispatch == "grouped"
            elif isinstance(module, FeedForward):
                module.is_transposed = True
            elif isinstance(module, Experts):
                module.is_split = True

    def unstacked(self) -> list[Group]:
        """Returns the arrays of every group of layers, for `__call__` if layers are not scanned."""
        _, params, state = split(self.groups)
        return _unstack((params, state), self.config.num_periods)

    def _embedding(self) -> jax.Array:
        """Returns the embedding, on a mesh in its sharding for computation."""
        return self._computed_with(self.embedding)[...]

    def _computed_with(self, parameter: nnx.Variable[Any]) -> nnx.Variable[Any]:
        """Gathers a sharded parameter, after a cast to the compute precision if it permits one.

        Returns the parameter itself on a single device. Experts keep their stored sharding:
        `ShardedMoE` gathers them.
        """
        if not self.partition.is_sharded:
            return parameter
        axes = parameter.get_metadata("logical_axes")
        value = parameter[...]
        if in_compute_precision(axes):
            value = value.astype(self.config.compute_dtype)
        if "experts" not in axes:
            value = self.partition.constrain(value, self.partition.computed(axes))
        return parameter.replace(value)

    def logits(
        self, hidden_BSD: ActivationsBSD, projection_DV: jax.Array | None = None
    ) -> LogitsBSV:
        """Computes float32 logits over the vocabulary.

        Args:
            hidden_BSD: final activations.
            projection_DV: the transposed embedding in their precision, if there is a copy.
        """
        if projection_DV is not None:
            return jnp.einsum(
                "bsd,dv->bsv", hidden_BSD, projection_DV, preferred_element_type=jnp.float32
            )
        embedding = self.embedding[...].astype(hidden_BSD.dtype)
        return jnp.einsum("bsd,vd->bsv", hidden_BSD, embedding, preferred_element_type=jnp.float32)

    def make_caches(self, batch: int, length: int) -> Caches:
        """Returns empty caches for `batch` rows of up to `length` positions."""
        config = self.config
        shape: tuple[int, ...] = (batch, config.num_heads, length, config.head_dim)
        groups = config.num_periods
        if config.scan_layers:
            shape, groups = (groups, *shape), 1
        zeros = jnp.zeros(shape, config.compute_dtype)
        return [[KeyValueCache(zeros, zeros) for _ in range(config.period)] for _ in range(groups)]

    def _of_layers(self, context: RoutingContext | None) -> RoutingContext:
        """Returns the context with a key for every group of layers."""
        if context is None or context.key is None:
            return context or RoutingContext()
        keys = jax.random.split(context.key, self.config.num_periods)
        return dataclasses.replace(context, key=keys)

    def _layers(
        self,
        x_BSD: ActivationsBSD,
        batch: BatchContext,
        contexts: RoutingContext,
        given: tuple[Caches | None, list[Group] | None],
    ) -> tuple[ActivationsBSD, Routing, Caches | None]:
        """Runs the groups of layers, scanned or unrolled, with equal results."""
        caches, groups = given
        graph, params, state = split(self.groups)

        def body(x: jax.Array, group: tuple) -> tuple:
            (params, state, caches), context = group
            params = _map_variables(self._computed_with, params)
            layers = nnx.merge(graph, params, state)
            x, routing, caches = layers(x, batch, context, caches)
            return x, (routing, caches)

        body = rematerialise(body, self.config)
        if self.config.scan_layers:
            stacked = (params, state, caches[0] if caches else None)
            x_BSD, (routing, new) = jax.lax.scan(body, x_BSD, (stacked, contexts))
            return x_BSD, routing, [new] if caches else None
        outputs = []
        groups = groups or _unstack((params, state), self.config.num_periods)
        for index, group in enumerate(groups):
            of_group = jax.tree.map(lambda leaf, i=index: leaf[i], contexts)
            x_BSD, output = body(x_BSD, ((*group, caches[index] if caches else None), of_group))
            outputs.append(output)
        routing = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(r for r, _ in outputs))
        return x_BSD, routing, [new for _, new in outputs] if caches else None


def in_compute_precision(axes: Sequence[str | None]) -> bool:
    """Returns True if a parameter with these axes is cast before it is gathered and used."""
    return bool(set(axes) & _ROUNDED_AXES)


def _map_variables(
    function: Callable[[nnx.Variable[Any]], nnx.Variable[Any]], state: nnx.State
) -> nnx.State:
    flat = [(path, function(variable)) for path, variable in state.flat_state()]
    return nnx.State.from_flat_path(flat)


def _stacked(
    config: ModelConfig, router: Router | None, rngs: nnx.Rngs, partition: Partition
) -> LayerGroup:
    """Makes one module of all groups, whose parameters are stacked over the groups."""
    keys = jax.random.split(rngs.params(), config.num_periods)

    def create(key: jax.Array) -> LayerGroup:
        return LayerGroup(config, router, nnx.Rngs(params=key), partition)

    graph = nnx.graphdef(nnx.eval_shape(lambda: create(keys[0])))
    return nnx.merge(graph, jax.vmap(lambda key: nnx.state(create(key)))(keys))


def _unstack(tree: tuple, count: int) -> list[tuple]:
    """Splits every leaf along its first axis; the gradient is a single concatenation."""
    leaves, structure = jax.tree.flatten(tree)
    split = [jax.lax.split(leaf, [1] * count) for leaf in leaves]
    split = [[part.squeeze(0) for part in parts] for parts in split]
    return [jax.tree.unflatten(structure, parts) for parts in zip(*split, strict=True)]
