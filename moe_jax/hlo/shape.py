"""Shapes of HLO instructions: element types, dimensions, memory spaces and bytes.

Source: https://openxla.org/xla/shapes and, for layouts with tiles and memory spaces,
https://openxla.org/xla/tiled_layout.
"""

import dataclasses
import functools
import math
import re

from moe_jax.errors import UserError
from moe_jax.hlo.lexer import closing_bracket, split_at_commas

# Bits of an element, by XLA's name of the type. Tokens and opaque values have no bytes.
_BITS = {
    "pred": 8,
    "bf16": 16,
    "c64": 64,
    "c128": 128,
    "token": 0,
    "opaque": 0,
}
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^{}]*)\})?")
_MEMORY_SPACE = re.compile(r"S\((\d+)\)")
_LAYOUT = re.compile(r"([\d,]+)(?::T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class ArrayShape:
    """Shape of one array.

    Attributes:
        dtype: XLA's name, such as `bf16`, `s32` or `pred`.
        dims: sizes.
        memory_space: 0 is HBM. The compiler numbers the others: on TPU, 1 is VMEM, 3 the common
            memory of v4, 5 the host's memory, 2, 4 and 6 flags and scalars.
        padded_dims: sizes with the padding of a tiled layout; None if there is none.
    """

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = 0
    padded_dims: tuple[int, ...] | None = None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without the padding of tiled layouts."""
        return math.ceil(self.elements * element_bits(self.dtype) / 8)

    @property
    def padded_bytes(self) -> int:
        """Bytes in memory: those of the elements and of the padding of a tiled layout."""
        if self.padded_dims is None:
            return self.bytes
        return math.ceil(math.prod(self.padded_dims) * element_bits(self.dtype) / 8)


# An array, or a tuple of shapes.
Shape = ArrayShape | tuple["Shape", ...]


def element_bits(dtype: str) -> int:
    """Returns the number of bits of an element.

    Args:
        dtype: XLA's name, such as `bf16` or `f8e4m3fn`.

    Raises:
        UserError: if the name is unknown.
    """
    if dtype in _BITS:
        return _BITS[dtype]
    if match := re.fullmatch(r"[suf](\d+)(e\w+)?", dtype):
        return int(match[1])
    raise UserError(f"not an element type of HLO: {dtype!r}")


def leaves(shape: Shape) -> tuple[ArrayShape, ...]:
    """Returns the arrays of a shape, in order."""
    if isinstance(shape, ArrayShape):
        return (shape,)
    return tuple(array for part in shape for array in leaves(part))


@functools.lru_cache(maxsize=1 << 16)
def parse_shape(text: str) -> Shape:
    """Parses a shape, such as `(bf16[8,128]{1,0:T(8,128)S(1)}, token[])`.

    Raises:
        UserError: if the text is not a shape.
    """
    text = text.strip()
    if text.startswith("("):
        inside = text[1 : closing_bracket(text, 0)]
        return tuple(parse_shape(piece) for piece in split_at_commas(inside))
    match = _ARRAY.fullmatch(text)
    if not match:
        raise UserError(f"not a shape of HLO: {text[:60]!r}")
    element_bits(match[1])  # Raises for an unknown element type.
    dims = tuple(int(size.strip().removeprefix("<=")) for size in match[2].split(",") if size)
    space = _MEMORY_SPACE.search(match[3] or "")
    return ArrayShape(match[1], dims, int(space[1]) if space else 0, _padded(dims, match[3] or ""))


def _padded(dims: tuple[int, ...], layout: str) -> tuple[int, ...] | None:
    """Returns the sizes with the padding of a layout such as `2,1,0:T(8,128)(2,1)`.

    The tile is that of the dimensions that are most minor, the last of them first in the layout.
    """
    match = _LAYOUT.match(layout)
    if match is None or match[2] is None:
        return None
    minor_to_major = [int(dimension) for dimension in match[1].split(",") if dimension]
    tile = [int(size) for size in match[2].split(",") if size]
    found = list(dims)
    for dimension, size in zip(minor_to_major, reversed(tile), strict=False):
        found[dimension] = math.ceil(found[dimension] / size) * size
    return tuple(found)
