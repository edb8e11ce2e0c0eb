"""The text form of HLO: logical lines, shapes, and lists that nest.

Source: XLA's printer and parser of HLO text, `xla/hlo/parser/hlo_parser.cc` and the operation
semantics, https://openxla.org/xla/operation_semantics; layouts with tiles and memory spaces,
https://openxla.org/xla/shapes and https://openxla.org/xla/tiled_layout.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

from moe_jax.errors import UserError

# Bits of an element, by XLA's name of the type. A token, an opaque value: no bytes.
_BITS = {
    "pred": 8,
    "bf16": 16,
    "c64": 64,
    "c128": 128,
    "token": 0,
    "opaque": 0,
}
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|[{}()\[\],]', re.DOTALL)
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\](?:\{([^{}]*)\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_KEY = re.compile(r"\s*([A-Za-z_][\w-]*)=")
_LONGEST = 2000  # Lines that one instruction may take.
_OPEN, _CLOSE = "{([", "})]"


@dataclasses.dataclass(frozen=True)
class Array:
    """The shape of one array.

    Attributes:
        dtype: XLA's name, such as `bf16`, `s32` or `pred`.
        dims: sizes.
        memory_space: 0 is HBM. Others are what the compiler numbers: on TPU, 1 is VMEM, 3 the
            common memory of v4, 5 the host's memory, 2, 4 and 6 flags and scalars.
    """

    dtype: str
    dims: tuple[int, ...]
    memory_space: int = 0

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes of the elements; what tiles add as padding is not counted."""
        return math.ceil(self.elements * bits(self.dtype) / 8)


# An array, or a tuple of shapes.
Shape = Array | tuple["Shape", ...]


def bits(dtype: str) -> int:
    """Returns the bits of an element.

    Args:
        dtype: XLA's name, such as `bf16` or `f8e4m3fn`.

    Raises:
        UserError: if the name is not known.
    """
    if dtype in _BITS:
        return _BITS[dtype]
    if match := re.fullmatch(r"[suf](\d+)(e\w+)?", dtype):
        return int(match[1])
    raise UserError(f"not an element type of HLO: {dtype!r}")


def leaves(shape: Shape) -> tuple[Array, ...]:
    """Returns the arrays of a shape, in order."""
    if isinstance(shape, Array):
        return (shape,)
    return tuple(array for part in shape for array in leaves(part))


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields lines with their numbers from 1, those joined that quotes or brackets hold together.

    Only what stands inside a computation, indented, is joined; a computation's own braces open at
    the end of a line and close at the beginning of one.

    Raises:
        UserError: if a quote or a bracket is not closed; the message names the line.
    """
    held, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        if held:
            held = f"{held}\n{line}"
        elif line[:1].isspace():
            held, first = line, number
        else:
            yield number, line
            continue
        if _closed(held):
            yield first, held
            held = ""
        elif number - first > _LONGEST:
            break
    if held:
        raise UserError(f"HLO text, line {first}: a quote or a bracket is not closed")


def _closed(line: str) -> bool:
    """Returns whether quotes and brackets of a line close."""
    balanced = line.count("{") == line.count("}") and line.count("(") == line.count(")")
    if balanced and line.count('"') % 2 == 0:
        return True
    depths, end = [0, 0, 0], 0
    for token in _TOKENS.finditer(line):
        if '"' in line[end : token.start()]:
            return False
        end = token.end()
        for kind in range(3):
            depths[kind] += (token[0] == _OPEN[kind]) - (token[0] == _CLOSE[kind])
    return max(depths) <= 0 and '"' not in line[end:]


def matching(text: str, start: int) -> int:
    """Returns the position of the bracket that closes the one at `start`.

    Raises:
        UserError: if there is none.
    """
    depth = 0
    for token in _TOKENS.finditer(text, start):
        if token[0] in _OPEN:
            depth += 1
        elif token[0] in _CLOSE:
            depth -= 1
            if depth == 0:
                return token.start()
    raise UserError(f"a bracket is not closed: {text[start : start + 60]!r}")


def split(text: str) -> list[str]:
    """Splits at the commas that stand in no bracket, quote or comment; comments are dropped."""
    pieces, depth, start, cuts = [], 0, 0, []
    for token in _TOKENS.finditer(text):
        kind = token[0]
        if kind in _OPEN:
            depth += 1
        elif kind in _CLOSE:
            depth -= 1
        elif kind.startswith("/*"):
            cuts.append(token.span())
        elif kind == "," and depth == 0:
            pieces.append(_without(text, start, token.start(), cuts))
            start, cuts = token.end(), []
    pieces.append(_without(text, start, len(text), cuts))
    return [piece for piece in pieces if piece]


def _without(text: str, start: int, end: int, cuts: list[tuple[int, int]]) -> str:
    kept, position = [], start
    for left, right in cuts:
        kept.append(text[position:left])
        position = right
    return "".join([*kept, text[position:end]]).strip()


@functools.lru_cache(maxsize=1 << 16)
def parse_shape(text: str) -> Shape:
    """Parses a shape, such as `(bf16[8,128]{1,0:T(8,128)S(1)}, token[])`.

    Raises:
        UserError: if it is none.
    """
    text = text.strip()
    if text.startswith("("):
        return tuple(parse_shape(piece) for piece in split(text[1 : matching(text, 0)]))
    match = _ARRAY.fullmatch(text)
    if not match:
        raise UserError(f"not a shape of HLO: {text[:60]!r}")
    bits(match[1])  # Refuses what is no element type.
    dims = tuple(int(size.strip().removeprefix("<=")) for size in match[2].split(",") if size)
    space = _SPACE.search(match[3] or "")
    return Array(match[1], dims, int(space[1]) if space else 0)


def parse_attributes(text: str) -> dict[str, str]:
    """Parses `, key=value, key=value` into values as they are written."""
    attributes: dict[str, str] = {}
    last = ""
    for piece in split(text):
        if match := _KEY.match(piece):
            last = match[1]
            attributes[last] = piece[match.end() :]
        elif last:
            attributes[last] += f", {piece}"
    return attributes


def integers(text: str) -> tuple[int, ...]:
    """Returns the whole numbers in a text such as `{0,1}`."""
    return tuple(int(number) for number in re.findall(r"-?\d+", text))
