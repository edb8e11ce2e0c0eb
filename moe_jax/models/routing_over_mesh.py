"""Routing and dispatch of a layer whose tokens and experts are spread over a mesh.

Every device routes the pools that are wholly its own, and sums what the losses need over all. A
pool that straddles devices (`Pool.rows = 0` holds the whole batch) is routed by every device from
the gathered scores; the tokens stay where they are, and each device works off its own.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from moe_jax.dispatch import get_dispatch
from moe_jax.dispatch.expert_parallel import Exchange, exchange_list, expert_parallel
from moe_jax.dispatch.grouped import work_off
from moe_jax.dispatch.implicit import implicit
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.sorted_rows import WorkList
from moe_jax.models.layer_inputs import (
    LayerInputs,
    LayerRows,
    Routing,
    router_scores,
    routing_of,
)
from moe_jax.routing.assignment import Pairs, RouterOutput, Slots
from moe_jax.routing.pools import Pool
from moe_jax.routing.router import Router, RouterState
from moe_jax.sharding.mesh import BATCH_AXES
from moe_jax.sharding.partition import Partition
from moe_jax.types import ActivationsBSD

_ROWS = PartitionSpec(BATCH_AXES)
_EVERYWHERE = PartitionSpec()
_EXPERT_AXES = ("experts", "expert_embed", "expert_mlp")


@dataclasses.dataclass(frozen=True)
class RoutingOverMesh:
    """What a layer needs to know beside its arrays.

    Attributes:
        partition: mesh and rules.
        dispatch: the transport where all experts are on the device.
    """

    partition: Partition
    dispatch: str

    def __call__(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        router: Router,
        state: RouterState,
        experts: ExpertNetwork,
    ) -> tuple[ActivationsBSD, Routing]:
        """Returns the experts' weighted outputs and `Routing`, the same on every device.

        Raises:
            UserError: if the rows do not divide over the devices.
        """
        if self.partition.expert_parallelism == "implicit":
            routed = router(router_scores(router, rows, inputs), state)
            assignment = routed.assignment
            if isinstance(assignment, Pairs) and assignment.capacity is not None:
                assignment = assignment.slots()
            if isinstance(assignment, Slots):
                y_BSD = self._implicit(assignment, rows.x_BSD, router.pool, experts)
                return y_BSD, routing_of(routed, router.pool, inputs, *rows.x_BSD.shape[:2])
        return self._explicit(rows, inputs, router, state, experts)

    def _implicit(
        self, slots: Slots, x_BSD: jax.Array, pool: Pool, experts: ExpertNetwork
    ) -> jax.Array:
        partition = self.partition
        batch, length, _ = x_BSD.shape
        by_pool = by_rest = None
        if is_local(pool, batch // partition.batch_shards, partition.batch_shards):
            by_pool, by_rest = BATCH_AXES, BATCH_AXES[:-1]
        spec = self._weight_spec()
        wi_EDF, wo_EDF = (partition.constrain(w, spec) for w in (experts.wi_EDF, experts.wo_EDF))
        y_PND = implicit(
            slots,
            pool.split(x_BSD),
            ExpertNetwork(wi_EDF, wo_EDF, experts.activation),
            partition.sharding(PartitionSpec(by_pool)),
            partition.sharding(PartitionSpec(spec[0], by_rest)),
        )
        return partition.constrain_rows(pool.join(y_PND, batch, length))

    def _weight_spec(self) -> PartitionSpec:
        return self.partition.computed(_EXPERT_AXES)

    def _explicit(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        router: Router,
        state: RouterState,
        experts: ExpertNetwork,
    ) -> tuple[jax.Array, Routing]:
        is_cut = self._weight_spec()[2] is not None and self.partition.size("tensor") > 1

        def on_device(
            rows: LayerRows,
            inputs: LayerInputs,
            state: RouterState,
            weights: tuple[jax.Array, jax.Array],
        ) -> tuple[jax.Array, Routing]:
            wi_EDF, wo_EDF = (self.partition.gather(part, _EXPERT_AXES) for part in weights)
            own = ExpertNetwork(wi_EDF, wo_EDF, experts.activation)
            device = _Device(self, router, own)
            y_BSD, routing = device.run(rows, inputs, state)
            if is_cut:
                # Each device has a part of the hidden units, so a part of the sum.
                y_BSD = jax.lax.psum_scatter(y_BSD, "tensor", scatter_dimension=2, tiled=True)
            return y_BSD, routing

        by_row = Routing(_EVERYWHERE, _EVERYWHERE, _EVERYWHERE, _ROWS)  # type: ignore[arg-type]
        y_BSD, routing = jax.shard_map(
            on_device,
            mesh=self.partition.mesh,
            in_specs=(_ROWS, _EVERYWHERE, _EVERYWHERE, self.partition.passed(_EXPERT_AXES)),
            out_specs=(PartitionSpec(BATCH_AXES, None, "tensor" if is_cut else None), by_row),
            check_vma=False,
        )(rows, inputs, state, (experts.wi_EDF, experts.wo_EDF))
        return self.partition.constrain_rows(y_BSD), routing

    @property
    def exchange(self) -> Exchange | None:
        """The devices that share the experts; None if every device has them all."""
        axis = self._weight_spec()[0]
        if axis is None or self.partition.size(axis) == 1:
            return None
        return Exchange(axis, self.partition.size(axis), BATCH_AXES, self.partition.buffer_factor)


def is_local(pool: Pool, rows: int, devices: int) -> bool:
    """Whether no pool straddles devices that have `rows` rows of the batch each."""
    if devices == 1 or pool.kind == "sequence":
        return True
    return pool.rows > 0 and rows % pool.rows == 0


class _Device:
    """What one device does with its rows, inside `jax.shard_map`."""

    def __init__(self, layer: RoutingOverMesh, router: Router, experts: ExpertNetwork):
        self._layer, self._router, self._experts = layer, router, experts
        self._shards = layer.partition.batch_shards

    def run(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        state: RouterState,
    ) -> tuple[jax.Array, Routing]:
        """Routes and dispatches this device's rows."""
        if is_local(self._router.pool, rows.x_BSD.shape[0], self._shards):
            return self._own_pools(rows, inputs, state)
        return self._straddling_pools(rows, inputs, state)

    def _own_pools(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        state: RouterState,
    ) -> tuple[jax.Array, Routing]:
        pool, (batch, length, _) = self._router.pool, rows.x_BSD.shape
        pools, _ = pool.shape(batch, length)
        first = jax.lax.axis_index(BATCH_AXES) * pools
        scores = router_scores(self._router, rows, inputs, first, BATCH_AXES)
        routed = self._router(scores, state)
        x_PND = pool.split(rows.x_BSD)
        exchange = self._layer.exchange
        if exchange is None:
            y_PND = get_dispatch(self._layer.dispatch)(routed.assignment, x_PND, self._experts)
        else:
            expected = self._router.experts_per_token
            y_PND = expert_parallel(routed.assignment, x_PND, self._experts, exchange, expected)
        # Means over the tokens here, weighted so that the devices add up to the batch's means.
        real = scores.mask_PN.sum(dtype=jnp.float32)
        weight = real / jnp.maximum(scores.total(real), 1.0)
        routing = dataclasses.replace(
            routing_of(routed, pool, inputs, batch, length),
            losses=jax.tree.map(lambda v: scores.total(v * weight), routed.losses),
            metrics=jax.tree.map(lambda v: scores.total(v * weight), routed.metrics),
            statistics=jax.tree.map(scores.total, routed.statistics),
        )
        return pool.join(y_PND, batch, length), routing

    def _straddling_pools(
        self,
        rows: LayerRows,
        inputs: LayerInputs,
        state: RouterState,
    ) -> tuple[jax.Array, Routing]:
        def everywhere(value: jax.Array) -> jax.Array:
            return jax.lax.all_gather(value, BATCH_AXES, axis=0, tiled=True)

        x_BSD = rows.x_BSD
        batch, length, width = x_BSD.shape
        logits_BSE, known = jax.tree.map(everywhere, (rows.logits_BSE, rows.known))
        scores = router_scores(self._router, LayerRows(x_BSD, logits_BSE, known), inputs)
        routed: RouterOutput = self._router(scores, state)
        first = jax.lax.axis_index(BATCH_AXES) * batch
        work = _own_work(routed.assignment, self._router.pool, first, batch, self._shards, length)
        x_TD, exchange = x_BSD.reshape(-1, width), self._layer.exchange
        if exchange is None:
            y_TD = work_off(work, x_TD, self._experts)
        else:
            expected = self._router.experts_per_token
            y_TD = exchange_list(work, x_TD, self._experts, exchange, expected)
        routing = routing_of(routed, self._router.pool, inputs, batch * self._shards, length)
        if routing.experts_BS is not None:
            own_BS = jax.lax.dynamic_slice_in_dim(routing.experts_BS, first, batch)
            routing = dataclasses.replace(routing, experts_BS=own_BS)
        return y_TD.reshape(x_BSD.shape), routing


def _own_work(
    assignment: Slots | Pairs, pool: Pool, first: jax.Array, rows: int, shards: int, length: int
) -> WorkList:
    """Returns the work of one device out of an assignment of the whole batch's tokens.

    Args:
        assignment: of all pools.
        pool: how the batch is cut into them.
        first: the device's first row.
        rows: its rows.
        shards: devices with as many.
        length: positions in a row.
    """
    batch = rows * shards
    if isinstance(assignment, Pairs):

        def own(value_PNK: jax.Array) -> jax.Array:
            value_BSK = pool.join(value_PNK, batch, length)
            return jax.lax.dynamic_slice_in_dim(value_BSK, first, rows).reshape(
                1, -1, value_PNK.shape[-1]
            )

        return WorkList.of_pairs(
            dataclasses.replace(
                assignment,
                expert_index_PNK=own(assignment.expert_index_PNK),
                weight_PNK=own(assignment.weight_PNK),
                chosen_PNK=own(assignment.chosen_PNK),
                slot_PNK=None,
                capacity=None,
            )
        )
    pools, experts, capacity = assignment.token_index_PEC.shape
    token_BS = jnp.arange(batch * length, dtype=jnp.int32).reshape(batch, length)
    token_PN = pool.split(token_BS) - first * length
    token_PM = jnp.take_along_axis(token_PN, assignment.token_index_PEC.reshape(pools, -1), axis=1)
    token_PEC = token_PM.reshape(pools, experts, capacity)
    is_own_PEC = assignment.filled_PEC & (token_PEC >= 0) & (token_PEC < rows * length)
    expert_PEC = jnp.broadcast_to(jnp.arange(experts)[:, None], token_PEC.shape)
    return WorkList(
        token_M=jnp.where(is_own_PEC, token_PEC, 0).reshape(-1),
        expert_M=jnp.where(is_own_PEC, expert_PEC, experts).reshape(-1),
        weight_M=jnp.where(is_own_PEC, assignment.weight_PEC, 0.0).reshape(-1),
        experts=experts,
    )
