"""Expert parallelism: experts are sharded over devices, and tokens are exchanged by all-to-all.

These functions are called inside `jax.shard_map`, on the tokens and the experts of one device. All
exchanged arrays have static shapes:

- an assignment with slots (expert choice, or token choice with a capacity) sends the rows of every
  expert in one all-to-all, in the order of the slots, and receives the outputs in another;
- pairs without a capacity are sorted by expert, and a device sends up to a fixed number of rows
  to each device at a time, plus one small all-to-all for the counts. Rows beyond that number take
  further rounds, as many as the most loaded pair of devices needs: nothing is dropped, memory does
  not depend on the load, and a balanced router needs one round.

With slots, the combine weights stay on the device of the tokens. With pairs, they are sent along:
the gradient of a weight is then computed on the device that has the expert's hidden units, and the
received outputs need not be kept or exchanged again in the backward pass.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch.gather import gather
from moe_jax.dispatch.grouped_ffn import grouped_ffn
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.rounds import sum_over_rounds
from moe_jax.dispatch.sorted_tokens import SortedTokens, TokenExpertPairs, sorted_by_expert
from moe_jax.routing.assignment import Assignment, Pairs
from moe_jax.routing.position_in_expert import expert_bounds, sort_by_expert
from moe_jax.types import ActivationsPND, ActivationsTD, CountXE, RowsERD, RowsXRD, WeightXR

_ROWS_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The devices that the experts are sharded over, and the size of their buffers.

    Attributes:
        axis: the mesh axis of the experts.
        size: number of devices along it.
        others: all mesh axes that tokens are sharded over; their devices take the same number of
            rounds.
        buffer_factor: number of rows that a device can send to another at a time, relative to the
            expected number.
    """

    axis: str
    size: int
    others: tuple[str, ...]
    buffer_factor: float

    def send(self, x: jax.Array) -> jax.Array:
        """Sends part i of the first axis to device i; returns the received parts, by sender."""
        return jax.lax.all_to_all(x, self.axis, split_axis=0, concat_axis=0)


def expert_parallel(
    assignment: Assignment,
    x_PND: ActivationsPND,
    experts: ExpertNetwork,
    exchange: Exchange,
    rows_per_token: float,
) -> ActivationsPND:
    """Dispatches the local tokens to the experts of all devices along the axis.

    Args:
        assignment: assignment of the local tokens to all experts.
        x_PND: the local tokens.
        experts: the local experts, E / size of them.
        exchange: the devices.
        rows_per_token: expected number of experts per token; determines the size of the buffers.
    """
    if isinstance(assignment, Pairs) and assignment.capacity is None:
        pools, tokens, width = x_PND.shape
        x_TD = x_PND.reshape(pools * tokens, width)
        pairs = TokenExpertPairs.of_pairs(assignment)
        return exchange_pairs(pairs, x_TD, experts, exchange, rows_per_token).reshape(x_PND.shape)
    return gather(assignment, x_PND, _RemoteExperts(experts, exchange))


@dataclasses.dataclass(frozen=True)
class _RemoteExperts:
    """A network of all experts that computes each expert on its device."""

    experts: ExpertNetwork
    exchange: Exchange

    def __call__(self, x_ERD: RowsERD) -> RowsERD:
        num_experts, rows, width = x_ERD.shape
        size = self.exchange.size
        local = num_experts // size
        # From [receiver, local expert, row] to [local expert, sender, row].
        received = self.exchange.send(x_ERD.reshape(size, local, rows, width))
        out = self.experts(received.swapaxes(0, 1).reshape(local, size * rows, width))
        out = out.reshape(local, size, rows, width).swapaxes(0, 1)
        return self.exchange.send(out).reshape(x_ERD.shape)


def buffer_rows(expected: float, factor: float) -> int:
    """Returns the number of rows in the buffer between two devices, for an expected number."""
    return max(math.ceil(expected * factor / _ROWS_MULTIPLE), 1) * _ROWS_MULTIPLE


def exchange_pairs(
    pairs: TokenExpertPairs,
    x_TD: ActivationsTD,
    experts: ExpertNetwork,
    exchange: Exchange,
    rows_per_token: float,
) -> ActivationsTD:
    """Dispatches token-expert pairs to experts on all devices; returns y [T, D].

    Every device along the axis must call it, with or without pairs.
    """
    expected = x_TD.shape[0] * rows_per_token / exchange.size
    rows = min(buffer_rows(expected, exchange.buffer_factor), pairs.expert_M.shape[0])
    pairs = sorted_by_expert(pairs)
    bounds = expert_bounds(pairs.expert_M, pairs.num_experts)
    local = pairs.num_experts // exchange.size
    per_device = bounds[local::local] - bounds[:-1:local]
    num_rounds = jax.lax.pmax(-(-per_device.max() // rows), exchange.others)
    first = _Round(exchange, rows)
    arrays, indices = (x_TD, pairs.weight_M, experts), (pairs.token_M, bounds)
    # The first round keeps its residuals for the backward pass; later rounds, which a balanced
    # router does not need, are recomputed.
    y_TD = first(jnp.zeros((), jnp.int32), arrays, indices)
    later_rounds = jnp.maximum(num_rounds - 1, 0)
    return y_TD + sum_over_rounds(_LaterRounds(first), later_rounds, arrays, indices)


@dataclasses.dataclass(frozen=True)
class _Round:
    """Sends up to `rows` rows to each device and sums the outputs that it receives."""

    exchange: Exchange
    rows: int

    def __call__(self, index: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
        x_TD, weight_M, experts = arrays
        token_M, bounds = indices
        size = self.exchange.size
        local = (bounds.shape[0] - 1) // size
        # Indices, among the rows sorted by expert, of the rows sent to each device (X).
        first_X1 = bounds[:-1:local, None] + index * self.rows
        row_XR = first_X1 + jnp.arange(self.rows, dtype=jnp.int32)
        is_valid_XR = row_XR < bounds[local::local, None]
        row_XR = jnp.minimum(row_XR, token_M.shape[0] - 1)
        token_XR = token_M[row_XR]
        weight_XR = jnp.where(is_valid_XR, weight_M[row_XR], 0.0)
        inside = jnp.clip(_windows(bounds, local) - first_X1, 0, self.rows)
        count_XE = inside[:, 1:] - inside[:, :-1]
        x_XRD = x_TD.at[token_XR].get(mode="promise_in_bounds")
        out_XRD = self._remote(x_XRD, weight_XR, count_XE, experts)
        return jnp.zeros_like(x_TD).at[token_XR].add(out_XRD, mode="promise_in_bounds")

    def _remote(
        self, x_XRD: RowsXRD, weight_XR: WeightXR, count_XE: CountXE, experts: ExpertNetwork
    ) -> RowsXRD:
        """Returns the rows after their experts on each device, weighted; unused rows are 0."""
        size, rows, width = x_XRD.shape
        received_XRD = checkpoint_name(self.exchange.send(x_XRD), "moe_in")
        weight_XR, count_XE = self.exchange.send(weight_XR), self.exchange.send(count_XE)
        local = count_XE.shape[1]
        end_XE = jnp.cumsum(count_XE, axis=1)
        row_R = jnp.arange(rows, dtype=jnp.int32)
        expert_XR = jnp.sum(row_R[:, None] >= end_XE[:, None, :], axis=-1, dtype=jnp.int32)
        expert_M, order_M = sort_by_expert(expert_XR.reshape(-1), local)
        y_MD = grouped_ffn(
            SortedTokens(
                received_XRD.reshape(size * rows, width),
                order_M,
                jnp.where(expert_M < local, weight_XR.reshape(-1)[order_M], 0.0),
                count_XE.sum(0),
                experts,
                uniform=False,
            )
        )
        return self.exchange.send(y_MD.reshape(size, rows, width))


@dataclasses.dataclass(frozen=True)
class _LaterRounds:
    """The rounds after the first."""

    first: _Round

    def __call__(self, index: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
        return self.first(index + 1, arrays, indices)


def _windows(bounds: jax.Array, local: int) -> jax.Array:
    """Returns the row bounds of the experts of each device, [X, local experts + 1]."""
    devices = (bounds.shape[0] - 1) // local
    return jnp.concatenate(
        [bounds[:-1].reshape(devices, local), bounds[local::local, None]], axis=1
    )
