"""Parser of HLO text.

XLA writes the text of an optimised, scheduled module with `--xla_dump_to` (the file
`*after_optimizations.txt`), and `compiled.as_text()` returns it.
docs/decisions/0010-hlo-is-read-as-text.md compares it with the protocol buffers.
"""

import re

from moe_jax.errors import UserError
from moe_jax.hlo.lexer import closing_bracket, logical_lines, parse_attributes, split_at_commas
from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.shape import parse_shape

_HEADER = re.compile(r"(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{\s*$", re.DOTALL)
_NAME = re.compile(r"\s+(ROOT\s+)?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([a-z][\w\-]*)\(")
_SHAPE = re.compile(r"[a-z]\w*\[[^\]]*\](?:\{[^{}]*\})?")
# Opcodes whose parentheses hold a literal instead of operands.
_LITERALS = ("constant", "parameter")


def parse_module(text: str) -> Module:
    """Parses the text of an HLO module.

    Raises:
        UserError: if the text is not HLO; the message names the line.
    """
    header: dict[str, str] = {}
    computations: dict[str, Computation] = {}
    entry, open_name, module_name = "", "", ""
    body = list[Instruction]()
    for number, line in logical_lines(text):
        if line.startswith("HloModule"):
            module_name, _, rest = line.removeprefix("HloModule").strip().partition(",")
            header = parse_attributes(rest)
        elif open_name and line.startswith("}"):
            computations[open_name] = Computation(open_name, tuple(body))
            open_name = ""
        elif open_name and line.strip():
            body.append(_instruction(line, number))
        elif not line[:1].isspace() and (match := _HEADER.match(line)):
            open_name, body = match[2], []
            entry = open_name if match[1] else entry
    if open_name:
        raise UserError(f"HLO text ends inside the computation {open_name!r}")
    if not computations:
        raise UserError("not HLO text: line 1 should begin with HloModule, and computations follow")
    return Module(
        module_name.strip(),
        computations,
        entry or list(computations)[-1],
        header.get("is_scheduled") == "true",
        int(header.get("num_partitions", 1)),
        int(header.get("replica_count", 1)),
    )


def _instruction(line: str, number: int) -> Instruction:
    """Parses one instruction.

    Raises:
        UserError: if the line is not an instruction; the message names the line.
    """
    match = _NAME.match(line)
    if not match:
        raise UserError(f"HLO text, line {number}: not an instruction: {line.strip()[:60]!r}")
    try:
        start = match.end()
        if line[start] == "(":
            end = closing_bracket(line, start) + 1
        elif shape_match := _SHAPE.match(line, start):
            end = shape_match.end()
        else:
            raise UserError("no shape")
        shape = parse_shape(line[start:end])
        opcode = _OPCODE.match(line, end)
        if not opcode:
            raise UserError("no opcode")
        close = closing_bracket(line, opcode.end() - 1)
    except (UserError, IndexError) as error:
        raise UserError(f"HLO text, line {number}: {match[2]}: {error}") from None
    inside = line[opcode.end() : close]
    is_literal = opcode[1] in _LITERALS
    return Instruction(
        name=match[2],
        opcode=opcode[1],
        shape=shape,
        operands=() if is_literal else tuple(_operand(piece) for piece in split_at_commas(inside)),
        literal=inside.strip() if is_literal else "",
        attribute_text=line[close + 1 :],
        is_root=bool(match[1]),
        line=number,
    )


def _operand(text: str) -> str:
    """Returns the name of an operand, which its shape may precede."""
    return text.rsplit(" ", 1)[-1].removeprefix("%")
