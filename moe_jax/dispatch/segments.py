"""Rows sorted by expert, cut into segments of a few static sizes.

XLA compiles static shapes, so an expert's rows are worked on as a segment of the smallest size
that holds them; rows of a segment that are not its expert's are masked. An expert with more rows
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
    """Returns the sizes of segments for up to `rows` rows of `experts` experts, increasing."""
    mean = rows / experts
    # Sizes are multiples of a few rows; where experts have few, fewer sizes to compile.
    multiple = 8 if mean >= 128 else 32
    sizes = {-(-int(mean * size) // multiple) * multiple for size in _SIZES}
    return tuple(sorted({min(size, rows) for size in sizes if size} or {rows}))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Segments:
    """Where the segments are: first each expert's first one, by size, then the further ones.

    Attributes:
        expert_Z: expert of a segment.
        start_Z: its first row.
        rows_Z: how many rows are its expert's; 0 for experts without rows.
        bounds: segments before those of each size, size 0 first; the last is E.
        further: number of further segments.
    """

    expert_Z: IndexZ
    start_Z: IndexZ
    rows_Z: IndexZ
    bounds: jax.Array
    further: jax.Array


def make_segments(count_E: CountE, rows: int, sizes: tuple[int, ...]) -> Segments:
    """Cuts rows sorted by expert into segments.

    Args:
        count_E: rows of each expert, at most `rows` in all.
        rows: static number of sorted rows.
        sizes: of segments, increasing.
    """
    experts, largest = count_E.shape[0], sizes[-1]
    count_E = count_E.astype(jnp.int32)
    start_E = jnp.cumsum(count_E) - count_E
    size_E = jnp.searchsorted(jnp.array([0, *sizes[:-1]]), count_E, side="left")
    order_E = jnp.argsort(size_E, stable=True).astype(jnp.int32)
    bounds = jnp.searchsorted(size_E[order_E], jnp.arange(len(sizes) + 2), side="left")
    more_E = jnp.maximum(-(-count_E // largest) - 1, 0)
    end_E = jnp.cumsum(more_E)
    index_Z = jnp.arange(rows // largest, dtype=jnp.int32)
    expert_Z = jnp.searchsorted(end_E, index_Z, side="right").clip(0, experts - 1)
    offset_Z = (index_Z - (end_E - more_E)[expert_Z] + 1) * largest
    rows_Z = jnp.clip(count_E[expert_Z] - offset_Z, 0, largest)
    return Segments(
        expert_Z=jnp.concatenate([order_E, expert_Z.astype(jnp.int32)]),
        start_Z=jnp.concatenate([start_E[order_E], start_E[expert_Z] + offset_Z]),
        rows_Z=jnp.concatenate([jnp.minimum(count_E[order_E], largest), rows_Z]),
        bounds=bounds.astype(jnp.int32),
        further=end_E[-1].astype(jnp.int32),
    )
