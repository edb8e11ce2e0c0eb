"""Trip counts of while loops."""

import dataclasses
import functools
from collections.abc import Callable

from moe_jax.hlo.evaluator import CallGraph, evaluate, is_loop_invariant
from moe_jax.hlo.module import Computation, Instruction

# Most iterations to simulate where the condition is more than one comparison.
_MAX_ITERATIONS = 100_000
# From a computation, the index path into its result, the value of the loop's counter, and the name
# of an instruction (the root if empty) to a value.
_Evaluate = Callable[[Computation, tuple[int, ...], int, str], int | None]
# Comparisons of a difference with 0.
_HOLDS: dict[str, Callable[[int], bool]] = {
    "LT": lambda d: d < 0,
    "LE": lambda d: d <= 0,
    "GT": lambda d: d > 0,
    "GE": lambda d: d >= 0,
    "NE": lambda d: d != 0,
    "EQ": lambda d: d == 0,
}


@dataclasses.dataclass(frozen=True)
class WhileLoop:
    """One while loop.

    Attributes:
        name: of the instruction.
        computation: name of the computation that holds it.
        body: name of the computation that it repeats.
        op_name: JAX's name of it, or an empty string.
        trip_count: iterations of one execution; None if they depend on data.
    """

    name: str
    computation: str
    body: str
    op_name: str
    trip_count: int | None


def analyze_while(
    call_graph: CallGraph, computation: Computation, instruction: Instruction
) -> WhileLoop:
    """Returns a while loop with its trip count.

    Args:
        call_graph: of the module.
        computation: that holds the loop.
        instruction: the loop.
    """
    return WhileLoop(
        name=instruction.name,
        computation=computation.name,
        body=instruction.called_as("body"),
        op_name=instruction.op_name,
        trip_count=trip_count(call_graph, computation, instruction),
    )


def trip_count(
    call_graph: CallGraph, computation: Computation, instruction: Instruction
) -> int | None:
    """Returns the iterations of one execution of a while loop, None if they depend on data.

    The compiler's `known_trip_count` is used if present. Otherwise the loop must have one counter
    that starts at a constant, changes by a constant, and is compared with a constant or a
    loop-invariant value.

    Args:
        call_graph: of the module.
        computation: that holds the loop.
        instruction: the loop.
    """
    known = instruction.config("known_trip_count", "n")
    if known is not None:
        return int(known)
    module = call_graph.module
    body = module.computation(instruction.called_as("body"))
    condition = module.computation(instruction.called_as("condition"))
    initial = functools.partial(
        evaluate,
        module,
        computation,
        instruction.operands[0],
        parameter_values=call_graph.parameter_values(computation),
    )
    width = len(body.root.operands)
    varying = [
        index
        for index in _elements_read(condition)
        if index >= width or not is_loop_invariant(body, index)
    ]
    if len(varying) != 1:
        return None
    counter = varying[0]

    def value_at(where: Computation, path: tuple[int, ...], x: int, name: str) -> int | None:
        def state(number: int, inner: tuple[int, ...]) -> int | None:
            if inner == (counter,):
                return x
            return initial(inner) if inner and is_loop_invariant(body, inner[0]) else None

        return evaluate(module, where, name or where.root.name, path, state)

    start = initial((counter,))
    if start is None:
        return None
    second = value_at(body, (counter,), start, "")
    third = None if second is None else value_at(body, (counter,), second, "")
    if second is None or third is None:
        return None
    if condition.root.opcode == "compare" and third - second == second - start:
        return _solve(condition, value_at, start, second)
    return _simulate(condition, body, value_at, counter, start)


def _elements_read(condition: Computation) -> list[int]:
    """Returns the indices of the elements of the loop's state that its condition reads."""
    indices = {
        int(instruction.attributes["index"])
        for instruction in condition.instructions
        if instruction.opcode == "get-tuple-element"
        and condition.operand(instruction).opcode == "parameter"
    }
    return sorted(indices)


def _solve(condition: Computation, value_at: _Evaluate, start: int, second: int) -> int | None:
    """Returns the iterations for which a comparison of two linear functions holds."""
    root = condition.root
    differences = []
    for x in (start, second):
        left, right = (value_at(condition, (), x, operand) for operand in root.operands)
        if left is None or right is None:
            return None
        differences.append(left - right)
    difference, step = differences[0], differences[1] - differences[0]
    holds = _HOLDS[root.attributes["direction"]]
    if not holds(difference):
        return 0
    if step == 0:
        return None
    # The first iteration at which it can fail is next to the zero of the difference.
    near = max(0, -difference // step)
    for iterations in range(max(1, near - 1), near + 3):
        if not holds(difference + iterations * step):
            return iterations
    return None


def _simulate(
    condition: Computation, body: Computation, value_at: _Evaluate, counter: int, start: int
) -> int | None:
    """Returns the iterations for which a condition holds, by simulating the counter."""
    value: int | None = start
    for iterations in range(_MAX_ITERATIONS):
        continues = None if value is None else value_at(condition, (), value, "")
        if value is None or continues is None:
            return None
        if not continues:
            return iterations
        value = value_at(body, (counter,), value, "")
    return None
