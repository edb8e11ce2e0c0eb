"""Attention in tiles on TPU (Pallas), with T5's bias: [query, key] arrays stay on the chip.

    y = softmax(q k^T / sqrt(K) + bias + mask) v

The forward pass keeps a running maximum and sum for each query; the backward pass computes the
logits again from q, k and the logarithm of the softmax's denominator, L, and goes once over all
tiles for all gradients (Dao et al. 2022, FlashAttention, algorithms 1 and 4). Tiles that no query
sees are not computed.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_jax.models.attention_tiles import (
    SQUARE,
    Bias,
    Refs,
    TileShape,
    add_bias_gradient,
    dot,
    for_kind,
    tile_logits,
)
from moe_jax.types import KeysBSHK, MaskBS, TokensBS

# Sides of a tile, the best first.
_BLOCKS = (512, 256, 128)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Inputs:
    """The inputs of the kernels; the gradient is in all but the last two."""

    q_BHSK: jax.Array
    k_BHSK: jax.Array
    v_BHSK: jax.Array
    bias: Bias | None
    segments_BS: TokensBS | None
    prefix_BS: TokensBS | None


def flash_attention(
    qkv_BSHK: tuple[KeysBSHK, KeysBSHK, KeysBSHK],
    bias: Bias | None = None,
    segments_BS: TokensBS | None = None,
    prefix_BS: TokensBS | MaskBS | None = None,
    *,
    interpret: bool = False,
) -> KeysBSHK:
    """Returns y [B, S, H, K] in the precision of v; logits and softmax are in float32.

    Args:
        qkv_BSHK: queries, keys and values.
        bias: added to the logits; none if absent.
        segments_BS: documents, which do not see each other.
        prefix_BS: nonzero or true for tokens that see each other in both directions.
        interpret: run on any platform, slowly, for tests.
    """
    batch, length, heads, head_dim = qkv_BSHK[0].shape
    padding = -length % SQUARE
    padded = length + padding

    def pad(x: jax.Array) -> jax.Array:
        # No real query sees padding, which is later than all of them and in no prefix.
        return jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))

    shape = TileShape(
        batch=batch,
        heads=heads,
        length=padded,
        head_dim=head_dim,
        block=next(block for block in _BLOCKS if padded % block == 0),
        has_bias=bias is not None,
        has_segments=segments_BS is not None,
        has_prefix=prefix_BS is not None,
        interpret=interpret,
    )
    segments, prefix = (
        None if x is None else pad(x.astype(jnp.int32)) for x in (segments_BS, prefix_BS)
    )
    q, k, v = (pad(x).swapaxes(1, 2) for x in qkv_BSHK)
    y_BHSK = _attend(shape, _Inputs(q, k, v, bias, segments, prefix))
    return y_BHSK.swapaxes(1, 2)[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(shape: TileShape, inputs: _Inputs) -> jax.Array:
    return _forward(shape, inputs)[0]


def _forward(shape: TileShape, inputs: _Inputs) -> tuple[jax.Array, Any]:
    n, block, q = shape.blocks, shape.block, inputs.q_BHSK
    # A tile that is not computed is not loaded either: its index is that of the one before.
    seen = (lambda j, i: j) if shape.has_prefix else jnp.minimum
    names, arrays, specs = _operands(shape, inputs, lambda i, j: i, lambda i, j: seen(j, i))
    rows = pl.BlockSpec((1, 1, block, shape.head_dim), lambda b, h, i, j: (b, h, i, 0))
    logs = pl.BlockSpec((1, 1, 1, block), lambda b, h, i, j: (b, h, 0, i))
    y_BHSK, log_BH1S = pl.pallas_call(
        functools.partial(_forward_kernel, shape, (*names, "y", "log", "largest", "sum", "total")),
        grid=(shape.batch, shape.heads, n, n),
        in_specs=specs,
        out_specs=(rows, logs),
        out_shape=(
            jax.ShapeDtypeStruct(q.shape, inputs.v_BHSK.dtype),
            jax.ShapeDtypeStruct((shape.batch, shape.heads, 1, shape.length), jnp.float32),
        ),
        scratch_shapes=[
            pltpu.VMEM((1, block), jnp.float32),
            pltpu.VMEM((1, block), jnp.float32),
            pltpu.VMEM((shape.head_dim, block), jnp.float32),
        ],
        compiler_params=_parameters(3),
        cost_estimate=shape.cost(2, 4, q.dtype.itemsize),
        interpret=shape.interpret,
        name="attention_forward",
    )(*arrays)
    y_BHSK = checkpoint_name(y_BHSK, "attention_context")
    log_BH1S = checkpoint_name(log_BH1S, "attention_context")
    return y_BHSK, (inputs, y_BHSK, log_BH1S)


def _forward_kernel(shape: TileShape, names: Sequence[str], *refs: Any) -> None:
    """Adds a tile of keys to the running softmax of a block of queries."""
    ref = _by_name(shape, names, refs)
    query, key = pl.program_id(2), pl.program_id(3)

    @pl.when(key == 0)
    def _start() -> None:
        ref["largest"][...] = jnp.full_like(ref["largest"], -jnp.inf)
        ref["sum"][...] = jnp.zeros_like(ref["sum"])
        ref["total"][...] = jnp.zeros_like(ref["total"])

    def add(kind: str) -> None:
        v_SK = ref["v"][0, 0]
        logits_SQ = tile_logits(shape, ref, kind)
        before_1Q = ref["largest"][...]
        largest_1Q = jnp.maximum(before_1Q, logits_SQ.max(0, keepdims=True))
        weights_SQ = jnp.exp(logits_SQ - largest_1Q)
        rescale_1Q = jnp.exp(before_1Q - largest_1Q)
        ref["largest"][...] = largest_1Q
        ref["sum"][...] = rescale_1Q * ref["sum"][...] + weights_SQ.sum(0, keepdims=True)
        weighted_KQ = dot(v_SK, weights_SQ.astype(v_SK.dtype), ((0,), (0,)))
        ref["total"][...] = rescale_1Q * ref["total"][...] + weighted_KQ

    for_kind(shape, query, key, add)

    @pl.when(key == shape.blocks - 1)
    def _end() -> None:
        sum_1Q = ref["sum"][...]
        ref["y"][0, 0] = (ref["total"][...] / sum_1Q).T.astype(ref["y"].dtype)
        ref["log"][0, 0] = ref["largest"][...] + jnp.log(sum_1Q)


def _backward(shape: TileShape, kept: Any, dy_BHSK: jax.Array) -> tuple[_Inputs]:
    inputs, y_BHSK, log_BH1S = kept
    q, n, block = inputs.q_BHSK, shape.blocks, shape.block
    full = jnp.float32
    shift_BHS = jnp.einsum("bhsk,bhsk->bhs", dy_BHSK, y_BHSK, preferred_element_type=full)
    # Here a block of keys goes over the blocks of queries.
    seen = (lambda j, i: j) if shape.has_prefix else jnp.maximum
    names, arrays, specs = _operands(shape, inputs, lambda i, j: seen(j, i), lambda i, j: i)
    by_query = pl.BlockSpec((1, 1, block, shape.head_dim), lambda b, h, i, j: (b, h, seen(j, i), 0))
    logs = pl.BlockSpec((1, 1, 1, block), lambda b, h, i, j: (b, h, 0, seen(j, i)))
    by_key = pl.BlockSpec((1, 1, block, shape.head_dim), lambda b, h, i, j: (b, h, i, 0))

    def whole(*sizes: int) -> tuple[pl.BlockSpec, jax.ShapeDtypeStruct]:
        # Stays in the chip's memory until all tiles of a head have added to it.
        struct = jax.ShapeDtypeStruct((shape.batch, shape.heads, *sizes), full)
        return pl.BlockSpec((1, 1, *sizes), lambda b, h, i, j: (b, h, 0, 0)), struct

    outputs = {
        "dq": whole(shape.length, shape.head_dim),
        "dk": (by_key, jax.ShapeDtypeStruct(q.shape, q.dtype)),
        "dv": (by_key, jax.ShapeDtypeStruct(q.shape, inputs.v_BHSK.dtype)),
    }
    if shape.has_bias:
        outputs["d_near"] = whole(SQUARE, 2 * SQUARE)
        outputs["d_ahead"] = whole(1, SQUARE)
    names += ("dy", "log", "shift", *outputs, "dk_sum", "dv_sum")
    result = pl.pallas_call(
        functools.partial(_backward_kernel, shape, names),
        grid=(shape.batch, shape.heads, n, n),
        in_specs=[*specs, by_query, logs, logs],
        out_specs=[spec for spec, _ in outputs.values()],
        out_shape=[struct for _, struct in outputs.values()],
        scratch_shapes=[pltpu.VMEM((block, shape.head_dim), full)] * 2,
        compiler_params=_parameters(2),
        cost_estimate=shape.cost(5, 9, q.dtype.itemsize),
        interpret=shape.interpret,
        name="attention_backward",
    )(*arrays, dy_BHSK, log_BH1S, shift_BHS[:, :, None])
    d = dict(zip(outputs, result, strict=True))
    d_bias = None
    if shape.has_bias:
        near_HSQ, ahead_H = d["d_near"].sum(0), d["d_ahead"].sum((0, 2, 3))
        d_bias = Bias(near_HSQ, ahead_H, -near_HSQ.sum((1, 2)) - ahead_H)
    dq_BHSK = (d["dq"] * shape.head_dim**-0.5).astype(q.dtype)
    return (_Inputs(dq_BHSK, d["dk"], d["dv"], d_bias, None, None),)


def _backward_kernel(shape: TileShape, names: Sequence[str], *refs: Any) -> None:
    """Adds the gradients of a tile to those of its queries, its keys and values, and the bias."""
    ref = _by_name(shape, names, refs)
    key, query = pl.program_id(2), pl.program_id(3)

    @pl.when((key == 0) & (query == 0))
    def _start() -> None:
        for name in ("dq", "d_near", "d_ahead"):
            if name in ref:
                ref[name][...] = jnp.zeros_like(ref[name])

    @pl.when(query == 0)
    def _start_keys() -> None:
        for name in ("dk_sum", "dv_sum"):
            ref[name][...] = jnp.zeros_like(ref[name])

    def add(kind: str) -> None:
        q_QK, k_SK, v_SK, dy_QK = (ref[name][0, 0] for name in ("q", "k", "v", "dy"))
        weights_SQ = jnp.exp(tile_logits(shape, ref, kind) - ref["log"][0, 0])
        ref["dv_sum"][...] += dot(weights_SQ.astype(dy_QK.dtype), dy_QK, ((1,), (0,)))
        d_weights_SQ = dot(v_SK, dy_QK, ((1,), (1,)))
        d_logits_SQ = weights_SQ * (d_weights_SQ - ref["shift"][0, 0])
        low_SQ = d_logits_SQ.astype(q_QK.dtype)
        ref["dk_sum"][...] += dot(low_SQ, q_QK, ((1,), (0,)))
        rows = pl.ds(pl.multiple_of(query * shape.block, shape.block), shape.block)
        ref["dq"][0, 0, rows, :] += dot(low_SQ, k_SK, ((0,), (0,)))
        if shape.has_bias:
            add_bias_gradient(shape, ref, kind, d_logits_SQ)

    for_kind(shape, query, key, add)

    @pl.when(query == shape.blocks - 1)
    def _end() -> None:
        scale = shape.head_dim**-0.5
        ref["dk"][0, 0] = (ref["dk_sum"][...] * scale).astype(ref["dk"].dtype)
        ref["dv"][0, 0] = ref["dv_sum"][...].astype(ref["dv"].dtype)


_attend.defvjp(_forward, _backward)


def _operands(
    shape: TileShape,
    inputs: _Inputs,
    query: Callable[[Any, Any], Any],
    key: Callable[[Any, Any], Any],
) -> tuple[tuple[str, ...], list[jax.Array], list[pl.BlockSpec]]:
    """Returns the names, arrays and blocks of the inputs that both kernels read.

    Args:
        shape: the static facts.
        inputs: the arrays.
        query: the block of queries of a step of the grid's last two axes.
        key: its block of keys.
    """
    block, found = shape.block, []

    def rows(index: Callable[[Any, Any], Any]) -> pl.BlockSpec:
        size = (1, 1, block, shape.head_dim)
        return pl.BlockSpec(size, lambda b, h, i, j: (b, h, index(i, j), 0))

    found += [("q", inputs.q_BHSK, rows(query))]
    found += [("k", inputs.k_BHSK, rows(key)), ("v", inputs.v_BHSK, rows(key))]
    if inputs.bias is not None:
        size = (1, SQUARE, 2 * SQUARE)
        near = pl.BlockSpec(size, lambda b, h, i, j: (h, 0, 0))
        found.append(("near", inputs.bias.near_HSQ.astype(jnp.float32), near))
        constants_2H = jnp.stack([inputs.bias.ahead_H, inputs.bias.far_H]).astype(jnp.float32)
        found.append(("constants", constants_2H, pl.BlockSpec(memory_space=pltpu.SMEM)))
    for name, array in (("segments", inputs.segments_BS), ("prefix", inputs.prefix_BS)):
        if array is not None:
            row = pl.BlockSpec((1, 1, block), lambda b, h, i, j: (b, 0, query(i, j)))
            column = pl.BlockSpec((1, block, 1), lambda b, h, i, j: (b, key(i, j), 0))
            found += [(f"query_{name}", array[:, None, :], row)]
            found += [(f"key_{name}", array[:, :, None], column)]
    names, arrays, specs = zip(*found, strict=True)
    return names, list(arrays), list(specs)


def _by_name(shape: TileShape, names: Sequence[str], refs: Sequence[Any]) -> Refs:
    """Returns the references of a kernel by name, with the two constants of the bias."""
    ref = dict(zip(names, refs, strict=True))
    if shape.has_bias:
        constants, head = ref["constants"], pl.program_id(1)
        ref |= {"ahead": constants[0, head], "far": constants[1, head]}
    return ref


def _parameters(parallel: int) -> pltpu.CompilerParams:
    """Returns the grid's meaning: the first axes in any order, the others one after another."""
    order = pltpu.GridDimensionSemantics
    return pltpu.CompilerParams(
        dimension_semantics=(order.PARALLEL,) * parallel + (order.ARBITRARY,) * (4 - parallel)
    )
