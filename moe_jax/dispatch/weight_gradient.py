"""The gradient of experts' weights on sorted rows: sum over each expert's rows of a b^T.

On TPU by the grouped kernel of Megablox, which JAX carries: TPU compilers make a kernel of
`jax.lax.ragged_dot` where each row meets one weight, but turn this product, contracted over the
rows, into a dense one over all experts, E times the work. (On CPU, too: there,
`moe_jax.dispatch.grouped_ffn_loop` runs instead.)
"""

import functools

import jax
import jax.numpy as jnp

from moe_jax.types import CountE, RowsMD, RowsMF, WeightEDF

# Tiles of rows and of columns that the kernel keeps in fast memory: the largest that fit there
# twice beside a float32 accumulator, on the generations with the least.
_ROW_TILE, _SMALL_ROW_TILE, _COLUMN_TILE = 512, 128, 512


def weight_gradient(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Returns [E, D, F] in the precision of `a_MD`; zeros for experts without rows.

    Args:
        a_MD: rows sorted by expert.
        b_MF: the same rows.
        count_E: rows of each expert; rows after the last expert's do not count.
    """
    return jax.lax.platform_dependent(a_MD, b_MF, count_E, tpu=megablox, default=ragged)


def ragged(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE) -> WeightEDF:
    """Computes it by the compiler's ragged product."""
    numbers = jax.lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(((0,), (0,)), ((), ())),
        lhs_ragged_dimensions=[0],
        rhs_group_dimensions=[],
    )
    return jax.lax.ragged_dot_general(a_MD, b_MF, count_E, numbers)


def megablox(a_MD: RowsMD, b_MF: RowsMF, count_E: CountE, interpret: bool = False) -> WeightEDF:
    """Computes it by the kernel; `interpret` runs it anywhere, slowly."""
    # Imported here: it takes as long as all the rest of the command line.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm

    rows = a_MD.shape[0]
    tile = _ROW_TILE if rows >= _ROW_TILE else _SMALL_ROW_TILE
    padding = ((0, -rows % tile), (0, 0))
    a_MD, b_MF = jnp.pad(a_MD, padding), jnp.pad(b_MF, padding)
    columns = (min(_COLUMN_TILE, a_MD.shape[1]), min(_COLUMN_TILE, b_MF.shape[1]))
    multiply = functools.partial(tgmm, tiling=(tile, *columns), interpret=interpret)
    return multiply(a_MD.T, b_MF, count_E, preferred_element_type=a_MD.dtype)
