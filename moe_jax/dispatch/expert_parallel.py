"""Expert parallelism: each device has some of the experts, and tokens travel to them and back.

To be called inside `jax.shard_map`, on the tokens and the experts of one device. Everything that
travels has a static shape:

- an assignment with slots (expert choice, or token choice with a capacity) sends every expert's
  rows in one all-to-all, in the order of the slots, and gets them back in another;
- pairs without a capacity are sorted by expert, and a device sends up to a fixed number of rows
  to each other device at a time, with one more, tiny all-to-all for the counts. Rows beyond that
  number take further turns, as many as the fullest pair of devices needs: nothing is dropped,
  memory does not follow the load, and a balanced router needs one turn.

With slots the combine weights stay where the tokens are. Pairs take theirs along: the gradient of
a weight is then found where the expert's hidden units are, and what came back need not be kept or
fetched again in the backward pass.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from moe_jax.dispatch.expert_rows import expert_rows
from moe_jax.dispatch.gather import gather
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.sorted_rows import SortedRows, WorkList, sorted_by_expert
from moe_jax.dispatch.turns import sum_over_turns
from moe_jax.routing.assignment import Assignment, Pairs
from moe_jax.routing.ranks import expert_bounds, sort_by_expert
from moe_jax.types import ActivationsPND

_ROWS_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Exchange:
    """The group of devices that share the experts.

    Attributes:
        axis: the mesh axis of the experts.
        size: devices along it.
        others: all mesh axes that hold tokens, which take the same number of turns.
        buffer_factor: rows a device can send to another at a time, relative to its share of the
            expected rows.
    """

    axis: str
    size: int
    others: tuple[str, ...]
    buffer_factor: float

    def send(self, x: jax.Array) -> jax.Array:
        """Sends part i of the first axis to device i; returns what came, by sender."""
        return jax.lax.all_to_all(x, self.axis, split_axis=0, concat_axis=0)


def expert_parallel(
    assignment: Assignment,
    x_PND: ActivationsPND,
    experts: ExpertNetwork,
    exchange: Exchange,
    rows_per_token: float,
) -> ActivationsPND:
    """Dispatches this device's tokens to the experts of all devices along the axis.

    Args:
        assignment: of this device's tokens to all experts.
        x_PND: this device's tokens.
        experts: this device's experts, E / size of them.
        exchange: the devices.
        rows_per_token: expected number of experts per token, which the buffers are made for.
    """
    if isinstance(assignment, Pairs) and assignment.capacity is None:
        pools, tokens, width = x_PND.shape
        x_TD = x_PND.reshape(pools * tokens, width)
        work = WorkList.of_pairs(assignment)
        return exchange_list(work, x_TD, experts, exchange, rows_per_token).reshape(x_PND.shape)
    return gather(assignment, x_PND, _Elsewhere(experts, exchange))


@dataclasses.dataclass(frozen=True)
class _Elsewhere:
    """All experts as a network, each computed by the device that has it."""

    experts: ExpertNetwork
    exchange: Exchange

    def __call__(self, x_ERD: jax.Array) -> jax.Array:
        experts, rows, width = x_ERD.shape
        size = self.exchange.size
        own = experts // size
        # From [to, own expert, row] to [own expert, from, row].
        came = self.exchange.send(x_ERD.reshape(size, own, rows, width))
        out = self.experts(came.swapaxes(0, 1).reshape(own, size * rows, width))
        out = out.reshape(own, size, rows, width).swapaxes(0, 1)
        return self.exchange.send(out).reshape(x_ERD.shape)


def buffer_rows(expected: float, factor: float) -> int:
    """Returns the rows that a device can send to another at a time, for `expected` of them."""
    return max(math.ceil(expected * factor / _ROWS_MULTIPLE), 1) * _ROWS_MULTIPLE


def exchange_list(
    work: WorkList,
    x_TD: jax.Array,
    experts: ExpertNetwork,
    exchange: Exchange,
    rows_per_token: float,
) -> jax.Array:
    """Works off a list of (token, expert, weight) with experts on other devices; returns y [T, D].

    Every device along the axis has to call it, whether it has work or not.
    """
    expected = x_TD.shape[0] * rows_per_token / exchange.size
    rows = min(buffer_rows(expected, exchange.buffer_factor), work.expert_M.shape[0])
    work = sorted_by_expert(work)
    bounds = expert_bounds(work.expert_M, work.experts)
    own = work.experts // exchange.size
    per_device = bounds[own::own] - bounds[:-1:own]
    most = jax.lax.pmax(-(-per_device.max() // rows), exchange.others)
    turn = _Turn(exchange, rows)
    arrays, indices = (x_TD, work.weight_M, experts), (work.token_M, bounds)
    # The first turn keeps what its gradient needs; further ones, which a balanced router does not
    # have, are computed again.
    y_TD = turn(jnp.zeros((), jnp.int32), arrays, indices)
    return y_TD + sum_over_turns(_Later(turn), jnp.maximum(most - 1, 0), arrays, indices)


@dataclasses.dataclass(frozen=True)
class _Turn:
    """Sends up to `rows` rows to each device, has them worked on and adds up what comes back."""

    exchange: Exchange
    rows: int

    def __call__(self, turn: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
        x_TD, weight_M, experts = arrays
        token_M, bounds = indices
        size = self.exchange.size
        own = (bounds.shape[0] - 1) // size
        # Of the rows sorted by expert, those of this turn to each device.
        first_S1 = bounds[:-1:own, None] + turn * self.rows
        row_SR = first_S1 + jnp.arange(self.rows, dtype=jnp.int32)
        mine_SR = row_SR < bounds[own::own, None]
        row_SR = jnp.minimum(row_SR, token_M.shape[0] - 1)
        token_SR = token_M[row_SR]
        weight_SR = jnp.where(mine_SR, weight_M[row_SR], 0.0)
        inside = jnp.clip(_windows(bounds, own) - first_S1, 0, self.rows)
        count_SE = inside[:, 1:] - inside[:, :-1]
        x_SRD = x_TD.at[token_SR].get(mode="promise_in_bounds")
        out_SRD = self._elsewhere(x_SRD, weight_SR, count_SE, experts)
        return jnp.zeros_like(x_TD).at[token_SR].add(out_SRD, mode="promise_in_bounds")

    def _elsewhere(
        self, x_SRD: jax.Array, weight_SR: jax.Array, count_SE: jax.Array, experts: ExpertNetwork
    ) -> jax.Array:
        """Has each device's rows worked on by its experts and weighted; rows of nobody are 0."""
        size, rows, width = x_SRD.shape
        came_SRD = checkpoint_name(self.exchange.send(x_SRD), "moe_in")
        weight_SR, count_SE = self.exchange.send(weight_SR), self.exchange.send(count_SE)
        own = count_SE.shape[1]
        end_SE = jnp.cumsum(count_SE, axis=1)
        place_R = jnp.arange(rows, dtype=jnp.int32)
        expert_SR = jnp.sum(place_R[:, None] >= end_SE[:, None, :], axis=-1, dtype=jnp.int32)
        expert_M, order_M = sort_by_expert(expert_SR.reshape(-1), own)
        y_MD = expert_rows(
            SortedRows(
                came_SRD.reshape(size * rows, width),
                order_M,
                jnp.where(expert_M < own, weight_SR.reshape(-1)[order_M], 0.0),
                count_SE.sum(0),
                experts,
                uniform=False,
            )
        )
        return self.exchange.send(y_MD.reshape(size, rows, width))


@dataclasses.dataclass(frozen=True)
class _Later:
    """The turns after the first."""

    turn: _Turn

    def __call__(self, turn: jax.Array, arrays: tuple, indices: tuple) -> jax.Array:
        return self.turn(turn + 1, arrays, indices)


def _windows(bounds: jax.Array, own: int) -> jax.Array:
    """Returns the bounds of each device's experts, [devices, own + 1]."""
    devices = (bounds.shape[0] - 1) // own
    return jnp.concatenate([bounds[:-1].reshape(devices, own), bounds[own::own, None]], axis=1)
