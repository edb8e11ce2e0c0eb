"""Evaluation of integers that a program computes from constants: bounds and steps of loops.

Values of 32-bit and narrower types wrap as they do on the device.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.shape import ArrayShape

# From the number of a parameter and the index path into its tuple to a value, None if unknown.
ParameterValues = Callable[[int, tuple[int, ...]], int | None]

_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}
_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": max,
    "minimum": min,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
}
# Opcodes whose result has the value of the first operand.
_PASS_THROUGH = frozenset(
    [
        "bitcast",
        "broadcast",
        "convert",
        "copy",
        "copy-done",
        "copy-start",
        "opt-barrier",
        "reshape",
    ],
)


@dataclasses.dataclass(frozen=True)
class CallGraph:
    """Call sites of the computations of a module.

    Attributes:
        module: the program.
        callsites: calling instructions and their computations, by the name of the called
            computation.
    """

    module: Module
    callsites: dict[str, tuple[tuple[Computation, Instruction], ...]]

    @classmethod
    def build(cls, module: Module) -> "CallGraph":
        """Builds the call graph of a module."""
        sites: dict[str, list[tuple[Computation, Instruction]]] = {}
        for computation, instruction in module.walk():
            for name in instruction.called:
                sites.setdefault(name, []).append((computation, instruction))
        return cls(module, {name: tuple(found) for name, found in sites.items()})

    def parameter_values(self, computation: Computation) -> ParameterValues:
        """Returns the values of a computation's parameters, known only if it has one caller.

        Of a loop's state, the loop-invariant elements are known.
        """
        sites = self.callsites.get(computation.name, ())
        if len({id(instruction) for _, instruction in sites}) != 1:
            return lambda number, path: None
        caller, instruction = sites[0]

        def value(number: int, path: tuple[int, ...]) -> int | None:
            if instruction.opcode == "while":
                body = self.module.computation(instruction.called_as("body"))
                if not path or not is_loop_invariant(body, path[0]):
                    return None
            elif instruction.opcode not in ("fusion", "call"):
                return None
            operand, values = instruction.operands[number], self.parameter_values(caller)
            return evaluate(self.module, caller, operand, path, values)

        return value


def is_loop_invariant(body: Computation, index: int) -> bool:
    """Returns whether a loop's body passes an element of its state through unchanged."""
    root = body.root
    if root.opcode != "tuple" or index >= len(root.operands):
        return False
    element = body.operand(root, index)
    while element.opcode in ("copy", "bitcast"):
        element = body.operand(element)
    return (
        element.opcode == "get-tuple-element"
        and int(element.attributes["index"]) == index
        and body.operand(element).opcode == "parameter"
    )


def evaluate(
    module: Module,
    computation: Computation,
    name: str,
    path: tuple[int, ...],
    parameter_values: ParameterValues,
) -> int | None:
    """Returns the integer that an instruction computes, None if it is unknown.

    Args:
        module: the program.
        computation: of the instruction.
        name: of the instruction.
        path: indices into the result's tuple, empty for an array.
        parameter_values: values of the computation's parameters.
    """
    instruction = computation.by_name.get(name)
    if instruction is None:
        return None
    value_of = functools.partial(evaluate, module, computation, parameter_values=parameter_values)
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "parameter":
        return parameter_values(int(instruction.literal), path)
    if opcode == "constant":
        return _constant(instruction.literal)
    if opcode == "get-tuple-element":
        return value_of(operands[0], (int(instruction.attributes["index"]), *path))
    if opcode == "tuple" and path:
        return value_of(operands[path[0]], path[1:])
    if opcode in _PASS_THROUGH:
        return value_of(operands[0], path)
    if opcode in ("fusion", "call") and len(instruction.called) == 1:
        called = module.computation(instruction.called[0])
        return evaluate(
            module, called, called.root.name, path, lambda n, inner: value_of(operands[n], inner)
        )
    if opcode in _BINARY or opcode in ("compare", "select", "negate", "not"):
        return _arithmetic(instruction, [value_of(operand, ()) for operand in operands])
    return None


def _constant(literal: str) -> int | None:
    match = re.fullmatch(r"\{?\s*(-?\d+|true|false)\s*\}?", literal)
    if not match:
        return None
    return int(match[1]) if match[1][-1].isdigit() else int(match[1] == "true")


def _arithmetic(instruction: Instruction, values: list[int | None]) -> int | None:
    opcode = instruction.opcode
    if opcode == "select" and values[0] is not None:
        return values[1 if values[0] else 2]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    if opcode == "compare":
        return int(_COMPARE[instruction.attributes["direction"]](known[0], known[1]))
    if opcode == "not":
        return int(not known[0]) if instruction.arrays[0].dtype == "pred" else ~known[0]
    result = -known[0] if opcode == "negate" else _BINARY[opcode](known[0], known[1])
    return wrap_integer(result, instruction.arrays[0])


def wrap_integer(value: int, array: ArrayShape) -> int:
    """Returns an integer wrapped to the range of an array's element type."""
    match = re.fullmatch(r"([su])(\d+)", array.dtype)
    if not match:
        return value
    size = 1 << int(match[2])
    value %= size
    return value - size if match[1] == "s" and value >= size // 2 else value
