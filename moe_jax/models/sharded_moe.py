"""Routing and dispatch of a layer whose tokens and experts are sharded over a mesh.

If every pool is on one device, each device routes its local pools, and losses, metrics and
statistics are summed over devices. If pools span devices (with `Pool.rows = 0` a pool is the whole
batch), every device routes all of them from the gathered scores, and then processes its local
tokens only.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.expert_parallel import Exchange, exchange_pairs, expert_parallel
from moe_jax.dispatch.grouped import dispatch_pairs
from moe_jax.dispatch.implicit_expert_parallel import implicit_expert_parallel
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.sorted_tokens import TokenExpertPairs
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.layer_routing import MoEInputs, Routing, router_scores
from moe_jax.routing.assignment import Pairs, RouterOutput, Slots
from moe_jax.routing.pools import Pool
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.rules import BATCH_AXES
from moe_jax.types import ActivationsBSD, ActivationsPND

_ROWS = PartitionSpec(BATCH_AXES)
_REPLICATED = PartitionSpec()
_EXPERT_AXES = ("experts", "expert_embed", "expert_mlp")


@dataclasses.dataclass(frozen=True)
class ShardedMoE:
    """Routes and dispatches the tokens of a layer over a mesh.

    Attributes:
        partition: mesh and sharding rules.
        dispatch: name of the dispatch if every device has all experts.
    """

    partition: Partition
    dispatch: str

    def __call__(self, inputs: MoEInputs) -> tuple[ActivationsBSD, Routing]:
        """Returns the combined expert outputs, sharded by rows, and `Routing`.

        Raises:
            UserError: if the number of rows is not a multiple of the number of devices.
        """
        if self.partition.expert_parallelism == "implicit":
            routed = inputs.router(inputs.scores(), inputs.state)
            assignment = routed.assignment
            if isinstance(assignment, Pairs) and assignment.capacity is not None:
                assignment = assignment.slots()
            if isinstance(assignment, Slots):
                return self._implicit(assignment, inputs), inputs.routing(
                    routed, inputs.x_BSD.shape[0]
                )
        return self._explicit(inputs)

    def _implicit(self, slots: Slots, inputs: MoEInputs) -> ActivationsBSD:
        partition, pool, experts = self.partition, inputs.router.pool, inputs.experts
        batch, length, _ = inputs.x_BSD.shape
        by_pool = by_rest = None
        if is_local(pool, batch // partition.batch_shards, partition.batch_shards):
            by_pool, by_rest = BATCH_AXES, BATCH_AXES[:-1]
        spec = self._weight_spec()
        wi_EDF, wo_EDF = (partition.constrain(w, spec) for w in (experts.wi_EDF, experts.wo_EDF))
        y_PND = implicit_expert_parallel(
            slots,
            pool.split(inputs.x_BSD),
            ExpertNetwork(wi_EDF, wo_EDF, experts.activation),
            partition.sharding(PartitionSpec(by_pool)),
            partition.sharding(PartitionSpec(spec[0], by_rest)),
        )
        return partition.constrain_rows(pool.join(y_PND, batch, length))

    def _weight_spec(self) -> PartitionSpec:
        return self.partition.computed(_EXPERT_AXES)

    def _explicit(self, inputs: MoEInputs) -> tuple[ActivationsBSD, Routing]:
        splits_hidden = self._weight_spec()[2] is not None and self.partition.size("tensor") > 1

        def on_device(inputs: MoEInputs) -> tuple[ActivationsBSD, Routing]:
            wi_EDF, wo_EDF = (
                self.partition.gather(shard, _EXPERT_AXES)
                for shard in (inputs.experts.wi_EDF, inputs.experts.wo_EDF)
            )
            local = dataclasses.replace(inputs.experts, wi_EDF=wi_EDF, wo_EDF=wo_EDF)
            y_BSD, routing = _LocalMoE(self, dataclasses.replace(inputs, experts=local))()
            if splits_hidden:
                # Each device has some of the hidden units, and therefore a partial sum.
                y_BSD = jax.lax.psum_scatter(y_BSD, "tensor", scatter_dimension=2, tiled=True)
            return y_BSD, routing

        everywhere: Any = _REPLICATED
        by_row: Any = _ROWS
        routing_spec = Routing(everywhere, everywhere, everywhere, by_row, by_row, by_row)
        y_BSD, routing = jax.shard_map(
            on_device,
            mesh=self.partition.mesh,
            in_specs=(self._input_specs(inputs),),
            out_specs=(
                PartitionSpec(BATCH_AXES, None, "tensor" if splits_hidden else None),
                routing_spec,
            ),
            check_vma=False,
        )(inputs)
        return self.partition.constrain_rows(y_BSD), routing

    def _input_specs(self, inputs: MoEInputs) -> Any:
        """Returns the sharding of the inputs: tokens by rows, experts as they are stored."""
        values: Any = dataclasses.replace  # The fields hold specs instead of arrays.
        stored = self.partition.passed(_EXPERT_AXES)
        return values(
            inputs,
            x_BSD=_ROWS,
            logits_BSE=_ROWS,
            batch=_ROWS,
            context=_REPLICATED,
            state=_REPLICATED,
            experts=values(inputs.experts, wi_EDF=stored, wo_EDF=stored),
        )

    @property
    def exchange(self) -> Exchange | None:
        """The devices that the experts are sharded over; None if every device has all experts."""
        axis = self._weight_spec()[0]
        if axis is None or self.partition.size(axis) == 1:
            return None
        return Exchange(axis, self.partition.size(axis), BATCH_AXES, self.partition.buffer_factor)


def is_local(pool: Pool, rows: int, devices: int) -> bool:
    """Returns True if no pool spans several of the devices, which have `rows` rows each."""
    if devices == 1 or pool.kind == "sequence":
        return True
    return pool.rows > 0 and rows % pool.rows == 0


class _LocalMoE:
    """Routes and dispatches the rows of one device, inside `jax.shard_map`."""

    def __init__(self, sharded: ShardedMoE, inputs: MoEInputs):
        self._sharded, self._inputs = sharded, inputs
        self._router, self._pool = inputs.router, inputs.router.pool
        self._shards = sharded.partition.batch_shards

    def __call__(self) -> tuple[ActivationsBSD, Routing]:
        if is_local(self._pool, self._inputs.x_BSD.shape[0], self._shards):
            return self._local_pools()
        return self._spanning_pools()

    def _local_pools(self) -> tuple[ActivationsBSD, Routing]:
        inputs, pool, (batch, length, _) = self._inputs, self._pool, self._inputs.x_BSD.shape
        pools, _ = pool.shape(batch, length)
        first = jax.lax.axis_index(BATCH_AXES) * pools
        scores = inputs.scores(first, BATCH_AXES)
        routed = self._router(scores, inputs.state)
        y_PND = self._dispatch(routed, pool.split(inputs.x_BSD))
        # Means over the local tokens, weighted such that the sum over devices is the batch's mean.
        real = scores.mask_PN.sum(dtype=jnp.float32)
        weight = real / jnp.maximum(scores.total(real), 1.0)
        routing = dataclasses.replace(
            inputs.routing(routed, batch),
            losses=jax.tree.map(lambda v: scores.total(v * weight), routed.losses),
            metrics=jax.tree.map(lambda v: scores.total(v * weight), routed.metrics),
            statistics=jax.tree.map(scores.total, routed.statistics),
        )
        return pool.join(y_PND, batch, length), routing

    def _dispatch(self, routed: RouterOutput, x_PND: ActivationsPND) -> ActivationsPND:
        experts, exchange = self._inputs.experts, self._sharded.exchange
        if exchange is None:
            return get_dispatch(self._sharded.dispatch)(routed.assignment, x_PND, experts)
        expected = self._router.experts_per_token
        return expert_parallel(routed.assignment, x_PND, experts, exchange, expected)

    def _spanning_pools(self) -> tuple[ActivationsBSD, Routing]:
        def everywhere(value: jax.Array) -> jax.Array:
            return jax.lax.all_gather(value, BATCH_AXES, axis=0, tiled=True)

        inputs = self._inputs
        batch, length, width = inputs.x_BSD.shape
        context = BatchContext(
            inputs.batch.tokens_BS, inputs.batch.positions_BS, inputs.batch.mask_BS
        )
        logits_BSE, context = jax.tree.map(everywhere, (inputs.logits_BSE, context))
        scores = router_scores(self._router, logits_BSE, context, inputs.context)
        routed = self._router(scores, inputs.state)
        first = jax.lax.axis_index(BATCH_AXES) * batch
        pairs = _local_pairs(
            routed.assignment, self._pool, _Shard(first, batch, batch * self._shards, length)
        )
        x_TD, exchange = inputs.x_BSD.reshape(-1, width), self._sharded.exchange
        if exchange is None:
            y_TD = dispatch_pairs(pairs, x_TD, inputs.experts)
        else:
            expected = self._router.experts_per_token
            y_TD = exchange_pairs(pairs, x_TD, inputs.experts, exchange, expected)
        routing = inputs.routing(routed, batch * self._shards)
        # The local rows of the outputs by token.
        by_token = (routing.experts_BS, routing.weight_BSE, routing.chosen_BSE)
        experts_BS, weight_BSE, chosen_BSE = jax.tree.map(
            lambda whole: jax.lax.dynamic_slice_in_dim(whole, first, batch), by_token
        )
        routing = dataclasses.replace(
            routing, experts_BS=experts_BS, weight_BSE=weight_BSE, chosen_BSE=chosen_BSE
        )
        return y_TD.reshape(inputs.x_BSD.shape), routing


@dataclasses.dataclass(frozen=True)
class _Shard:
    """The rows of one device.

    Attributes:
        first: index of the first row in the batch.
        rows: number of rows.
        batch: number of rows in the batch.
        length: number of positions in a row.
    """

    first: jax.Array
    rows: int
    batch: int
    length: int


def _local_pairs(assignment: Slots | Pairs, pool: Pool, shard: _Shard) -> TokenExpertPairs:
    """Returns the part of an assignment of the whole batch that belongs to one device's tokens."""
    if isinstance(assignment, Pairs):

        def local(value_PNK: jax.Array) -> jax.Array:
            value_BSK = pool.join(value_PNK, shard.batch, shard.length)
            return jax.lax.dynamic_slice_in_dim(value_BSK, shard.first, shard.rows).reshape(
                1, -1, value_PNK.shape[-1]
            )

        return TokenExpertPairs.of_pairs(
            dataclasses.replace(
                assignment,
                expert_index_PNK=local(assignment.expert_index_PNK),
                weight_PNK=local(assignment.weight_PNK),
                chosen_PNK=local(assignment.chosen_PNK),
                slot_PNK=None,
                capacity=None,
            )
        )
    pools, num_experts, capacity = assignment.token_index_PEC.shape
    token_BS = jnp.arange(shard.batch * shard.length, dtype=jnp.int32)
    token_BS = token_BS.reshape(shard.batch, shard.length)
    token_PN = pool.split(token_BS) - shard.first * shard.length
    token_PM = jnp.take_along_axis(token_PN, assignment.token_index_PEC.reshape(pools, -1), axis=1)
    token_PEC = token_PM.reshape(pools, num_experts, capacity)
    is_local_PEC = assignment.filled_PEC & (token_PEC >= 0)
    is_local_PEC &= token_PEC < shard.rows * shard.length
    expert_PEC = jnp.broadcast_to(jnp.arange(num_experts)[:, None], token_PEC.shape)
    return TokenExpertPairs(
        token_M=jnp.where(is_local_PEC, token_PEC, 0).reshape(-1),
        expert_M=jnp.where(is_local_PEC, expert_PEC, num_experts).reshape(-1),
        weight_M=jnp.where(is_local_PEC, assignment.weight_PEC, 0.0).reshape(-1),
        num_experts=num_experts,
    )
