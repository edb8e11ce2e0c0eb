"""The gradient of the experts' weights on sorted rows: the sum of a b^T over each expert's rows.

On TPU it uses the grouped kernel of Megablox, which is part of JAX. TPU compilers implement
`jax.lax.ragged_dot` with a grouped kernel if each row is multiplied by one weight, but expand this
product, which contracts over the rows, to a dense one over all experts, E times the work. (So does
the CPU compiler; there, `moe_jax.dispatch.grouped_ffn_loop` is used instead.)
"""

import functools

import jax
import jax.numpy as jnp

from moe_jax.types import CountE, RowsMD, RowsMF, WeightEDF

# Tiles of rows and of columns that the kernel keeps in fast memory: the largest that fit there
# twice beside a float32 accumulator, on the generations with the least.
_ROW_TILE, _SMALL_ROW_TILE, _COLUMN_TILE = 512, 128, 512


def weight_gradient(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Returns the gradient [E, D, F] in the precision of `a_MD`; zeros for experts without rows.

    Args:
        a_MD: rows sorted by expert.
        b_MF: rows in the same order.
        count_E: number of rows of each expert; rows after those of the last expert are ignored.
    """
    return jax.lax.platform_dependent(a_MD, b_MF, count_E, tpu=megablox, default=ragged)


def ragged(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Computes the gradient with `jax.lax.ragged_dot_general`."""
    numbers = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[],
    )
    return jax.lax.ragged_dot_general(a_MD, b_MF, count_E, numbers)


def megablox(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE, interpret: bool = False) -> WeightEDF:
    """Computes the gradient with the Megablox kernel; `interpret` emulates it on any platform."""
    # Imported here: it takes as long as all the rest of the command line.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    rows = a_MD.shape[0]
    tile = _ROW_TILE if rows >= _ROW_TILE else _SMALL_ROW_TILE
    padding = ((0, -rows % tile), (0, 0))
    a_MD, b_MF = jnp.pad(a_MD, padding), jnp.pad(b_MF, padding)
    columns = (min(_COLUMN_TILE, a_MD.shape[1]), min(_COLUMN_TILE, b_MF.shape[1]))
    multiply = functools.partial(tgmm, tiling=(tile, *columns), interpret=interpret)
    return multiply(a_MD.T, b_MF, count_E, preferred_element_type=a_MD.dtype)
