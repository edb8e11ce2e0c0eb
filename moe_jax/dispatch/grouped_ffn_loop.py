"""Grouped feed-forward for CPU: a loop over experts, with matrix products on rows in cache.

There is one loop per size of segment (`moe_jax.dispatch.segments`), with one iteration per segment,
so that the cost is proportional to the number of rows. JAX cannot differentiate loops with a
dynamic number of iterations in reverse mode, so both passes are implemented here; only the
pre-activations are kept for the backward pass. With g = dy[token], u = g W2 and
h = activation(pre):

    d weight = sum_f u h,   d pre = (u weight) activation'(pre),   dW2 = (g weight)^T h

The weights of an expert and a few hundred rows stay in cache through all products, which is faster
on CPU than one batched product over all experts (measured in docs/results/routing.md).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from moe_jax.dispatch.segments import Segments, make_segments, segment_sizes
from moe_jax.dispatch.sorted_tokens import Gradients, SortedTokens
from moe_jax.types import ActivationsTD, RowsMF


def forward(rows: SortedTokens) -> tuple[ActivationsTD, RowsMF]:
    """Returns y [T, D] and the pre-activations [M, F] (see `moe_jax.dispatch.grouped_ffn`)."""
    x_TD, wi_EDF, wo_EDF = rows.x_TD, rows.experts.wi_EDF, rows.experts.wo_EDF
    activation, token_M, weight_M = rows.experts.activation, rows.token_M, rows.weight_M

    def work(carry: tuple, segment: "_Segment") -> tuple:
        y_TD, pre_MF = carry
        token_R = segment.slice(token_M)
        weight_R1 = segment.mask(segment.slice(weight_M))[:, None].astype(x_TD.dtype)
        x_RD = _take(x_TD, token_R)
        with jax.named_scope("experts"):
            pre_RF = x_RD @ segment.of_expert(wi_EDF)
            out_RD = jnp.einsum("rf,df->rd", activation(pre_RF), segment.of_expert(wo_EDF))
        return _add(y_TD, token_R, out_RD * weight_R1), segment.write(pre_MF, pre_RF)

    # Unassigned rows are never written; the backward pass masks them when it reads them.
    pre_MF = _empty((token_M.shape[0], wi_EDF.shape[-1]), x_TD.dtype)
    carry = (jnp.zeros(x_TD.shape, jnp.float32), pre_MF)
    y_TD, pre_MF = _run(rows, carry, work, lambda carry, expert: carry)
    return y_TD.astype(x_TD.dtype), _floats(pre_MF, x_TD.dtype)


def backward(rows: SortedTokens, pre_MF: RowsMF, dy_TD: ActivationsTD) -> Gradients:
    """Returns the gradients with respect to x, weight, wi and wo."""
    x_TD, wi_EDF, wo_EDF = rows.x_TD, rows.experts.wi_EDF, rows.experts.wo_EDF
    activation, token_M, weight_M = rows.experts.activation, rows.token_M, rows.weight_M

    def work(carry: tuple, segment: "_Segment") -> tuple:
        dx_TD, d_weight_M, d_wi, d_wo = carry
        token_R = segment.slice(token_M)
        weight_R1 = segment.mask(segment.slice(weight_M))[:, None].astype(x_TD.dtype)
        g_RD, x_RD = _take(dy_TD, token_R), _take(x_TD, token_R)
        with jax.named_scope("experts"):
            pre_RF = segment.mask(segment.slice(pre_MF))
            hidden_RF, of_activation = jax.vjp(activation, pre_RF)
            u_RF = g_RD @ segment.of_expert(wo_EDF)
            d_weight_R = jnp.einsum("rf,rf->r", u_RF, hidden_RF, preferred_element_type=jnp.float32)
            (d_pre_RF,) = of_activation(u_RF * weight_R1)
            dx_RD = jnp.einsum("rf,df->rd", d_pre_RF, segment.of_expert(wi_EDF))
            d_wi_DF = jnp.einsum("rd,rf->df", x_RD, d_pre_RF)
            d_wo_DF = jnp.einsum("rd,rf->df", g_RD * weight_R1, hidden_RF)
        return (
            _add(dx_TD, token_R, dx_RD),
            segment.write(d_weight_M, d_weight_R),
            segment.accumulate(d_wi, d_wi_DF),
            segment.accumulate(d_wo, d_wo_DF),
        )

    def empty(carry: tuple, expert: jax.Array) -> tuple:
        dx_TD, d_weight_M, *d_weights = carry
        zeros = (jnp.zeros(d.shape[1:], wi_EDF.dtype) for d in d_weights)
        d_weights = [_put(d, zero, expert) for d, zero in zip(d_weights, zeros, strict=True)]
        return (dx_TD, d_weight_M, *d_weights)

    carry = (
        jnp.zeros(x_TD.shape, jnp.float32),
        jnp.zeros(token_M.shape, jnp.float32),
        # The gradient of every expert is written, with zeros for experts without rows.
        _empty(wi_EDF.shape, wi_EDF.dtype),
        _empty(wo_EDF.shape, wo_EDF.dtype),
    )
    dx_TD, d_weight_M, d_wi, d_wo = _run(rows, carry, work, empty)
    dtype = wi_EDF.dtype
    return dx_TD.astype(x_TD.dtype), d_weight_M, _floats(d_wi, dtype), _floats(d_wo, dtype)


class _Segment:
    """One segment in a loop: access to its rows in sorted arrays and to its expert's weights."""

    def __init__(self, segments: Segments, index: jax.Array, size: int, rows: int, further: bool):
        self._size, self._further = size, further
        self._expert = segments.expert_Z[index]
        start, count = segments.start_Z[index], segments.rows_Z[index]
        # A segment at the end of the array begins earlier, so that it fits.
        self._first = jnp.minimum(start, rows - size)
        row_R = self._first + jnp.arange(size, dtype=jnp.int32)
        self._is_valid_R = (row_R >= start) & (row_R < start + count)

    def slice(self, array_M: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(array_M, self._first, self._size)

    def mask(self, value_R: jax.Array) -> jax.Array:
        return jnp.where(self._is_valid(value_R), value_R, 0)

    def write(self, array_M: jax.Array, value_R: jax.Array) -> jax.Array:
        value_R = jnp.where(self._is_valid(value_R), _bits(value_R), self.slice(array_M))
        return jax.lax.dynamic_update_slice_in_dim(array_M, value_R, self._first, 0)

    def _is_valid(self, value_R: jax.Array) -> jax.Array:
        return self._is_valid_R.reshape(-1, *[1] * (value_R.ndim - 1))

    def of_expert(self, weight_EDF: jax.Array) -> jax.Array:
        return jax.lax.dynamic_index_in_dim(weight_EDF, self._expert, keepdims=False)

    def accumulate(self, weight_EDF: jax.Array, value_DF: jax.Array) -> jax.Array:
        if self._further:
            value_DF = value_DF + _floats(self.of_expert(weight_EDF), value_DF.dtype)
        return _put(weight_EDF, value_DF, self._expert)


class _UniformSegment(_Segment):
    """The rows of one expert if all experts have equally many: no row is masked."""

    def __init__(self, expert: jax.Array, size: int):
        self._size, self._further = size, False
        self._expert, self._first = expert, expert * size

    def mask(self, value_R: jax.Array) -> jax.Array:
        return value_R

    def write(self, array_M: jax.Array, value_R: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(array_M, _bits(value_R), self._first, 0)


def _run(
    rows: SortedTokens,
    carry: tuple,
    work: Callable[[tuple, _Segment], tuple],
    empty: Callable[[tuple, jax.Array], tuple],
) -> tuple:
    """Calls `work` for all segments, and `empty` for experts without rows."""
    num_rows, num_experts = rows.token_M.shape[0], rows.count_E.shape[0]
    if rows.uniform:
        size = num_rows // num_experts
        return jax.lax.fori_loop(
            0, num_experts, lambda e, carry: work(carry, _UniformSegment(e, size)), carry
        )
    sizes = segment_sizes(num_rows, num_experts)
    segments = make_segments(rows.count_E, num_rows, sizes)

    def loop(first: jax.Array, last: jax.Array, size: int, further: bool, carry: tuple) -> tuple:
        return jax.lax.fori_loop(
            first,
            last,
            lambda i, carry: work(carry, _Segment(segments, i, size, num_rows, further)),
            carry,
        )

    bounds = segments.bounds
    carry = jax.lax.fori_loop(
        bounds[0], bounds[1], lambda i, carry: empty(carry, segments.expert_Z[i]), carry
    )
    for index, size in enumerate(sizes, start=1):
        carry = loop(bounds[index], bounds[index + 1], size, False, carry)
    return loop(bounds[-1], bounds[-1] + segments.further, sizes[-1], True, carry)


def _take(x_TD: jax.Array, token_R: jax.Array) -> jax.Array:
    return x_TD.at[token_R].get(mode="promise_in_bounds")


def _add(y_TD: jax.Array, token_R: jax.Array, value_RD: jax.Array) -> jax.Array:
    return y_TD.at[token_R].add(value_RD.astype(y_TD.dtype), mode="promise_in_bounds")


def _put(weight_EDF: jax.Array, value_DF: jax.Array, expert: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(weight_EDF, _bits(value_DF), expert, 0)


# XLA's CPU backend converts a whole bfloat16 array to float32 and back to update a slice of it.
# Arrays that are written in loops therefore hold the bits of 16-bit floats as uint16, or float32.


def _empty(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jax.lax.empty(shape, jnp.uint16 if dtype.itemsize == 2 else dtype)


def _bits(value: jax.Array) -> jax.Array:
    two_bytes = value.dtype.itemsize == 2
    return jax.lax.bitcast_convert_type(value, jnp.uint16) if two_bytes else value


def _floats(bits: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)
