"""Lexical structure of HLO text: logical lines, nested lists and attributes.

Source: XLA's printer and parser of HLO text, `xla/hlo/parser/hlo_parser.cc`.
"""

import re
from collections.abc import Iterator

from moe_jax.errors import UserError

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|/\*.*?\*/|[{}()\[\],]', re.DOTALL)
_KEY = re.compile(r"\s*([A-Za-z_][\w-]*)=")
_MAX_LINES = 2000  # Of one instruction.
_OPEN, _CLOSE = "{([", "})]"


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields logical lines with the numbers of their first lines, from 1.

    Lines inside a computation (indented) are joined while a quote or a bracket is open. The braces
    of a computation itself open at the end of a line and close at the beginning of one.

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
        if _is_closed(held):
            yield first, held
            held = ""
        elif number - first > _MAX_LINES:
            break
    if held:
        raise UserError(f"HLO text, line {first}: a quote or a bracket is not closed")


def _is_closed(line: str) -> bool:
    """Returns whether all quotes and brackets of a line are closed."""
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


def closing_bracket(text: str, start: int) -> int:
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


def split_at_commas(text: str) -> list[str]:
    """Splits a text at the commas outside brackets, quotes and comments; drops the comments."""
    pieces, depth, start, comments = [], 0, 0, []
    for token in _TOKENS.finditer(text):
        kind = token[0]
        if kind in _OPEN:
            depth += 1
        elif kind in _CLOSE:
            depth -= 1
        elif kind.startswith("/*"):
            comments.append(token.span())
        elif kind == "," and depth == 0:
            pieces.append(_without_spans(text, start, token.start(), comments))
            start, comments = token.end(), []
    pieces.append(_without_spans(text, start, len(text), comments))
    return [piece for piece in pieces if piece]


def _without_spans(text: str, start: int, end: int, spans: list[tuple[int, int]]) -> str:
    kept, position = [], start
    for left, right in spans:
        kept.append(text[position:left])
        position = right
    return "".join([*kept, text[position:end]]).strip()


def parse_attributes(text: str) -> dict[str, str]:
    """Parses `, key=value, key=value` into unparsed values by key."""
    attributes: dict[str, str] = {}
    last = ""
    for piece in split_at_commas(text):
        if match := _KEY.match(piece):
            last = match[1]
            attributes[last] = piece[match.end() :]
        elif last:
            attributes[last] += f", {piece}"
    return attributes


def parse_integers(text: str) -> tuple[int, ...]:
    """Returns the integers in a text such as `{0,1}`."""
    return tuple(int(number) for number in re.findall(r"-?\d+", text))
