"""A tile of attention in a Pallas kernel: its masked logits, bias, and gradient of the bias.

A tile holds `block` keys times `block` queries, keys first: sums over keys are then rows. The bias
depends on the distance of query and key only, and is the same from 129 on: a square of 128 x 128 on
the diagonal, the square beside it, and a constant make every tile. Their gradients are sums over
the squares of all tiles. The gradient of the constant needs no sum: those of all logits of a query
add up to 0.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from moe_jax.models.position_embeddings import MASKED
from moe_jax.types import BiasHQS

# Side of the squares of the bias: lanes of a vector register.
SQUARE = 128
# References to blocks of arrays in the chip's memory, by name.
Refs = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bias:
    """The bias of every head by distance.

    Attributes:
        near_HSQ: for keys 0 to 127 and queries 0 to 255 of a row, [heads, 128, 256]; `MASKED` where
            the key is later than the query.
        ahead_H: for keys that are later than the query, which it sees in a prefix.
        far_H: for distances above 128.
    """

    near_HSQ: jax.Array
    ahead_H: jax.Array
    far_H: jax.Array

    @classmethod
    def of_row(cls, bias_HQS: BiasHQS, table: jax.Array) -> "Bias":
        """Makes it from the causal bias of a row of 256 positions and the table of buckets."""
        return cls(bias_HQS[:, :, :SQUARE].swapaxes(1, 2), table[0], table[-1])


@dataclasses.dataclass(frozen=True)
class TileShape:
    """The static facts of a call.

    Attributes:
        batch: number of rows on the device.
        heads: number of heads on the device.
        length: positions of a row, a multiple of `block`.
        head_dim: width of a head.
        block: side of a tile, a multiple of `SQUARE`.
        has_bias: there is a bias.
        has_segments: rows have several documents.
        has_prefix: rows have a prefix that sees itself in both directions.
        interpret: run on any platform, slowly.
    """

    batch: int
    heads: int
    length: int
    head_dim: int
    block: int
    has_bias: bool
    has_segments: bool
    has_prefix: bool
    interpret: bool

    @property
    def blocks(self) -> int:
        """Number of tiles along a row."""
        return self.length // self.block

    @property
    def squares(self) -> int:
        """Number of squares of the bias along a tile."""
        return self.block // SQUARE

    def cost(self, products: int, arrays: int, itemsize: int) -> pl.CostEstimate:
        """Returns the cost of so many products per tile, and so many arrays read or written."""
        tiles = self.blocks**2 if self.has_prefix else self.blocks * (self.blocks + 1) // 2
        pairs = self.batch * self.heads * tiles * self.block**2
        size = self.batch * self.heads * self.length * self.head_dim * itemsize
        return pl.CostEstimate(
            flops=2 * products * pairs * self.head_dim,
            transcendentals=pairs,
            bytes_accessed=arrays * size,
        )


def for_kind(shape: TileShape, query: Any, key: Any, run: Callable[[str], None]) -> None:
    """Runs what belongs to the place of a tile, if any query of it sees a key.

    Args:
        shape: the static facts.
        query: index of the tile's block of queries.
        key: index of its block of keys.
        run: is given the kind of tile: on the `diagonal`, `beside` it (the next queries), with all
            keys `before` that, or with all keys `ahead` of the queries. The kinds are programs of
            their own, without the masks and biases that they do not need.
    """
    kinds = {"diagonal": query == key, "beside": query == key + 1, "before": query > key + 1}
    if not shape.has_bias:
        kinds = {"diagonal": query == key, "before": query > key}
    if shape.has_prefix:
        kinds["ahead"] = query < key
    for kind, condition in kinds.items():
        pl.when(condition)(functools.partial(run, kind))


def tile_logits(shape: TileShape, ref: Refs, kind: str) -> jax.Array:
    """Returns the masked logits of a tile of a kind of `for_kind`, [key, query] float32."""
    logits_SQ = dot(ref["k"][0, 0], ref["q"][0, 0], ((1,), (1,))) * shape.head_dim**-0.5
    if shape.has_bias:
        logits_SQ = logits_SQ + _bias_tile(shape, ref, kind)
    visible_SQ = _visible(shape, ref, kind)
    return logits_SQ if visible_SQ is None else jnp.where(visible_SQ, logits_SQ, MASKED)


def _visible(shape: TileShape, ref: Refs, kind: str) -> jax.Array | None:
    """Returns which keys the queries of a tile see, None if all."""
    visible = ~_is_later(shape.block) if kind == "diagonal" else None
    if shape.has_prefix and kind in ("diagonal", "ahead"):
        both = (ref["key_prefix"][0] > 0) & (ref["query_prefix"][0] > 0)
        visible = both if visible is None else visible | both
    if shape.has_segments:
        same = ref["key_segments"][0] == ref["query_segments"][0]
        visible = same if visible is None else visible & same
    return visible


def _is_later(size: int) -> jax.Array:
    """Returns where the key is later than the query in a square on the diagonal, [key, query]."""
    key, query = (jax.lax.broadcasted_iota(jnp.int32, (size, size), axis) for axis in (0, 1))
    return key > query


def _bias_tile(shape: TileShape, ref: Refs, kind: str) -> jax.Array:
    """Returns the bias of a tile, [key, query], or the constant that it is."""
    ahead, far = ref["ahead"], ref["far"]
    if kind == "before":
        return far
    if kind == "ahead":
        return ahead
    near = ref["near"][0]
    at_0, at_1 = near[:, :SQUARE], near[:, SQUARE:]
    if shape.has_prefix:
        at_0 = jnp.where(_is_later(SQUARE), ahead, at_0)

    def square(key: int, query: int) -> jax.Array:
        offset = query - key + (shape.squares if kind == "beside" else 0)
        if offset in (0, 1):
            return at_1 if offset else at_0
        return jnp.full((SQUARE, SQUARE), far if offset > 1 else ahead, jnp.float32)

    places = range(shape.squares)
    return jnp.concatenate(
        [jnp.concatenate([square(key, query) for query in places], axis=1) for key in places],
        axis=0,
    )


def add_bias_gradient(shape: TileShape, ref: Refs, kind: str, d_logits_SQ: jax.Array) -> None:
    """Adds the gradients of a tile's logits to those of the squares and of the keys ahead.

    Args:
        shape: the static facts.
        ref: has `d_near` [1, 1, 128, 256] and `d_ahead` [1, 1, 1, 128], one value in 128 parts.
        kind: the kind of tile, of `for_kind`.
        d_logits_SQ: [key, query] float32.
    """
    if kind == "before":
        return

    def square(key: int, query: int) -> jax.Array:
        rows = slice(key * SQUARE, (key + 1) * SQUARE)
        return d_logits_SQ[rows, query * SQUARE : (query + 1) * SQUARE]

    near, last = ref["d_near"], shape.squares - 1
    if kind == "beside":
        near[0, 0, :, SQUARE:] += square(last, 0)
        return
    if kind == "ahead":
        sums_1Q = d_logits_SQ.sum(0, keepdims=True)
        for place in range(shape.squares):
            ref["d_ahead"][0, 0] += sums_1Q[:, place * SQUARE : (place + 1) * SQUARE]
        return
    on_diagonal = sum(square(place, place) for place in range(shape.squares))
    if shape.has_prefix:
        later = _is_later(SQUARE)
        below = jnp.where(later, on_diagonal, 0.0)
        for key in range(shape.squares):
            for query in range(key):
                below = below + square(key, query)
        ref["d_ahead"][0, 0] += below.sum(0, keepdims=True)
        on_diagonal = jnp.where(later, 0.0, on_diagonal)
    near[0, 0, :, :SQUARE] += on_diagonal
    for place in range(last):
        near[0, 0, :, SQUARE:] += square(place, place + 1)


def dot(a: jax.Array, b: jax.Array, axes: tuple[tuple[int], tuple[int]]) -> jax.Array:
    """Returns the product over an axis of each, summed in float32, and exact for float32."""
    exact = a.dtype == jnp.float32
    precision = jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT
    return jax.lax.dot_general(
        a, b, (axes, ((), ())), precision=precision, preferred_element_type=jnp.float32
    )
