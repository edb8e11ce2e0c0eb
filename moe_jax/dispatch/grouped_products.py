"""Matrix products of sorted rows with the weights of their experts, and their gradients.

On TPU they are the grouped kernels of Megablox, which are part of JAX. The compiler's own kernel
for `jax.lax.ragged_dot` takes tiles of 128 rows, and parts of 7,936 where it cuts the contracted
axis: it reads the weights many times, and multiplies much padding. The gradient of the weights,
which contracts over the rows, the compiler expands to a dense product over all experts, E times the
work. (So does the CPU's with both; there, `moe_jax.dispatch.grouped_ffn_loop` is used instead.)
"""

import functools
import math

import jax
import jax.numpy as jnp

from moe_jax.types import CountE, RowsMD, RowsMF, WeightEDF

# Tiles of rows, of contracted columns and of the result's columns that a kernel keeps in fast
# memory: twice beside a float32 accumulator they fit on the generations with the least, 16 MiB.
_ROW_TILES, _CONTRACTED, _COLUMNS = (512, 256, 128), 1024, 1024
# Of the gradient of the weights, whose accumulator has columns of both operands.
_GRADIENT_COLUMNS = 512
_LANES = 128


def multiply_rows(
    rows: jax.Array, weights: jax.Array, count_E: CountE, contract: int = 1
) -> jax.Array:
    """Multiplies each row by the weight of its expert; rows of nobody are undefined.

    Args:
        rows: [M, K], sorted by expert.
        weights: of the experts, [E, K, N] if axis 1 is contracted, [E, N, K] if axis 2 is.
        count_E: number of rows of each expert; rows after those of the last expert are of nobody.
        contract: 1 or 2, the axis of the weights.

    Returns:
        [M, N], in the precision of `rows`.
    """
    return jax.lax.platform_dependent(
        rows,
        weights,
        count_E,
        tpu=functools.partial(rows_by_kernel, contract=contract),
        default=functools.partial(ragged_rows, contract=contract),
    )


def weight_gradient(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Returns the sum of a b^T over each expert's rows, [E, D, F], in the precision of `a_MD`.

    Args:
        a_MD: rows sorted by expert.
        b_MF: rows in the same order.
        count_E: number of rows of each expert, 0 included; rows after those of the last expert are
            ignored.
    """
    return jax.lax.platform_dependent(
        a_MD, b_MF, count_E, tpu=gradient_by_kernel, default=ragged_gradient
    )


def ragged_rows(
    rows: jax.Array, weights: jax.Array, count_E: CountE, contract: int = 1
) -> jax.Array:
    """Computes `multiply_rows` with `jax.lax.ragged_dot_general`."""
    numbers = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((1,), (contract,)), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[0],
    )
    return jax.lax.ragged_dot_general(rows, weights, count_E, numbers)


def ragged_gradient(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Computes `weight_gradient` with `jax.lax.ragged_dot_general`."""
    numbers = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[],
    )
    return jax.lax.ragged_dot_general(a_MD, b_MF, count_E, numbers)


def rows_by_kernel(
    rows: jax.Array,
    weights: jax.Array,
    count_E: CountE,
    contract: int = 1,
    interpret: bool = False,
) -> jax.Array:
    """Computes `multiply_rows` with a kernel; `interpret` emulates it on any platform."""
    # Imported here: it takes as long as all the rest of the command line.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm

    number, contracted = rows.shape
    row_tile = _row_tile(number, weights.shape[0])
    columns = weights.shape[3 - contract]
    out = gmm(
        _pad_rows(rows, row_tile),
        weights,
        count_E,
        preferred_element_type=rows.dtype,
        tiling=(row_tile, _tile(contracted, _CONTRACTED), _tile(columns, _COLUMNS)),
        transpose_rhs=contract == 2,
        interpret=interpret,
    )
    return out[:number]


def gradient_by_kernel(
    a_MD: RowsMD, b_MF: RowsMF, count_E: CountE, interpret: bool = False
) -> WeightEDF:
    """Computes `weight_gradient` with a kernel; `interpret` emulates it on any platform."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    row_tile = _row_tile(a_MD.shape[0], count_E.shape[0])
    columns = (_tile(each.shape[1], _GRADIENT_COLUMNS) for each in (a_MD, b_MF))
    return tgmm(
        _pad_rows(a_MD, row_tile).T,
        _pad_rows(b_MF, row_tile),
        count_E,
        preferred_element_type=a_MD.dtype,
        tiling=(row_tile, *columns),
        interpret=interpret,
    )


def _row_tile(rows: int, experts: int) -> int:
    """Returns the largest tile of rows of which an expert has four on average, or the smallest.

    A tile with rows of two experts is computed for each of them.
    """
    return next((tile for tile in _ROW_TILES if rows >= 4 * tile * experts), _ROW_TILES[-1])


def _tile(size: int, most: int) -> int:
    """Returns the tile of at most so many columns that pads least; of several, the largest."""
    if size <= most:
        return size
    tiles = range(most, most // 2, -_LANES)
    return min(tiles, key=lambda tile: math.ceil(size / tile) * tile)


def _pad_rows(rows: jax.Array, tile: int) -> jax.Array:
    return jnp.pad(rows, ((0, -rows.shape[0] % tile), (0, 0)))
