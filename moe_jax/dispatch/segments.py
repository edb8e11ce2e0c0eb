"""Segments: rows sorted by expert, divided into blocks of a few static sizes.

XLA compiles static shapes, so the rows of an expert are processed as a segment of the smallest size
that holds them; rows in a segment that belong to other experts are masked. An expert with more rows
than the largest size has further segments of that size.
"""

import dataclasses

import jax
import jax.numpy as jnp

from moe_jax.types import CountE, IndexZ

# Relative to the mean number of rows of an expert; finest where the load of a balanced router
# falls, also of adaptive gating, which fills one half to all of the rows.
_SIZES = (1 / 16, 1 / 8, 1 / 4, 3 / 8, *(n / 16 for n in range(8, 21)), 3 / 2, 2.0)


def segment_sizes(rows: int, experts: int) -> tuple[int, ...]:
    """Returns the sizes of segments for up to `rows` rows of `experts` experts, ascending."""
    mean = rows / experts
    # Sizes are multiples of 8 rows, or of 32 for experts with few rows, to compile fewer sizes.
    multiple = 8 if mean >= 128 else 32
    sizes = {-(-int(mean * size) // multiple) * multiple for size in _SIZES}
    return tuple(sorted({min(size, rows) for size in sizes if size} or {rows}))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """Positions of the segments: the first segment of each expert by size, then further segments.

    Attributes:
        expert_Z: expert of each segment.
        start_Z: first row of each segment.
        rows_Z: number of rows that belong to the expert; 0 for experts without rows.
        bounds: index of the first segment of each size, starting with size 0; the last is E.
        further: number of further segments.
    """

    expert_Z: IndexZ
    start_Z: IndexZ
    rows_Z: IndexZ
    bounds: jax.Array
    further: jax.Array


def make_segments(count_E: CountE, rows: int, sizes: tuple[int, ...]) -> Segments:
    """Divides rows sorted by expert into segments.

    Args:
        count_E: number of rows of each expert, at most `rows` in total.
        rows: static number of sorted rows.
        sizes: sizes of segments, ascending.
    """
    num_experts, largest = count_E.shape[0], sizes[-1]
    count_E = count_E.astype(jnp.int32)
    start_E = jnp.cumsum(count_E) - count_E
    size_E = jnp.searchsorted(jnp.array([0, *sizes[:-1]]), count_E, side="left")
    order_E = jnp.argsort(size_E, stable=True).astype(jnp.int32)
    bounds = jnp.searchsorted(size_E[order_E], jnp.arange(len(sizes) + 2), side="left")
    more_E = jnp.maximum(-(-count_E // largest) - 1, 0)
    end_E = jnp.cumsum(more_E)
    index_Z = jnp.arange(rows // largest, dtype=jnp.int32)
    expert_Z = jnp.searchsorted(end_E, index_Z, side="right").clip(0, num_experts - 1)
    offset_Z = (index_Z - (end_E - more_E)[expert_Z] + 1) * largest
    rows_Z = jnp.clip(count_E[expert_Z] - offset_Z, 0, largest)
    return Segments(
        expert_Z=jnp.concatenate([order_E, expert_Z.astype(jnp.int32)]),
        start_Z=jnp.concatenate([start_E[order_E], start_E[expert_Z] + offset_Z]),
        rows_Z=jnp.concatenate([jnp.minimum(count_E[order_E], largest), rows_Z]),
        bounds=bounds.astype(jnp.int32),
        further=end_E[-1].astype(jnp.int32),
    )
