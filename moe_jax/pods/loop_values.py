"""Whole numbers that a program computes from constants alone: what bounds and steps of loops are.

Values of 32-bit and narrower types wrap as they do on the device.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.hlo_text import Array

# From the number of a parameter and the way into its tuple to a value; None if it is not known.
Parameter = Callable[[int, tuple[int, ...]], int | None]

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
# The result is the first operand, in another place or type.
_SAME = frozenset(
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
class Callers:
    """Where each computation of a module is called.

    Attributes:
        module: the program.
        sites: by the name of a computation, the instructions that call it, and where they stand.
    """

    module: Module
    sites: dict[str, tuple[tuple[Computation, Instruction], ...]]

    @classmethod
    def of(cls, module: Module) -> "Callers":
        """Finds them."""
        sites: dict[str, list[tuple[Computation, Instruction]]] = {}
        for computation, instruction in module.walk():
            for name in instruction.called:
                sites.setdefault(name, []).append((computation, instruction))
        return cls(module, {name: tuple(found) for name, found in sites.items()})

    def parameter(self, computation: Computation) -> Parameter:
        """Returns what a computation's parameters are, as far as its one caller says it.

        A loop's state is known where no turn changes it.
        """
        sites = self.sites.get(computation.name, ())
        if len({id(instruction) for _, instruction in sites}) != 1:
            return lambda number, path: None
        caller, instruction = sites[0]

        def value(number: int, path: tuple[int, ...]) -> int | None:
            if instruction.opcode == "while":
                body = self.module.computation(instruction.calls("body"))
                if not path or not is_invariant(body, path[0]):
                    return None
            elif instruction.opcode not in ("fusion", "call"):
                return None
            return evaluate(
                self.module, caller, instruction.operands[number], path, self.parameter(caller)
            )

        return value


def is_invariant(body: Computation, index: int) -> bool:
    """Returns whether a loop's body hands on an element of its state unchanged."""
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
    parameter: Parameter,
) -> int | None:
    """Returns the whole number that an instruction computes; None if it is not known.

    Args:
        module: the program.
        computation: where the instruction stands.
        name: of the instruction.
        path: the way into its tuple, empty for an array.
        parameter: values of the computation's parameters.
    """
    instruction = computation.by_name.get(name)
    if instruction is None:
        return None
    of = functools.partial(evaluate, module, computation, parameter=parameter)
    opcode, operands = instruction.opcode, instruction.operands
    if opcode == "parameter":
        return parameter(int(instruction.literal), path)
    if opcode == "constant":
        return _constant(instruction.literal)
    if opcode == "get-tuple-element":
        return of(operands[0], (int(instruction.attributes["index"]), *path))
    if opcode == "tuple" and path:
        return of(operands[path[0]], path[1:])
    if opcode in _SAME:
        return of(operands[0], path)
    if opcode in ("fusion", "call") and len(instruction.called) == 1:
        called = module.computation(instruction.called[0])
        return evaluate(
            module, called, called.root.name, path, lambda number, way: of(operands[number], way)
        )
    if opcode in _BINARY or opcode in ("compare", "select", "negate", "not"):
        return _arithmetic(instruction, [of(operand, ()) for operand in operands])
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
    return wrap(result, instruction.arrays[0])


def wrap(value: int, array: Array) -> int:
    """Returns a whole number as an array's element type holds it."""
    match = re.fullmatch(r"([su])(\d+)", array.dtype)
    if not match:
        return value
    size = 1 << int(match[2])
    value %= size
    return value - size if match[1] == "s" and value >= size // 2 else value
