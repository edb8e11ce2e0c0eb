"""How many times each computation of a program runs in one step.

XLA's own `cost_analysis` counts the body of a loop once; here it counts as often as it runs.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator

from moe_jax.errors import UserError
from moe_jax.pods.hlo import Computation, Instruction, Module
from moe_jax.pods.loop_values import Callers, evaluate, is_invariant

# How many turns to look at where the condition is more than one comparison.
_LONGEST = 100_000
# From a computation, the way into its result, the loop's counter, and the name of an instruction
# (the root if empty) to a value.
_At = Callable[[Computation, tuple[int, ...], int, str], int | None]
# The truth of comparing a difference with 0.
_HOLDS: dict[str, Callable[[int], bool]] = {
    "LT": lambda d: d < 0,
    "LE": lambda d: d <= 0,
    "GT": lambda d: d > 0,
    "GE": lambda d: d >= 0,
    "NE": lambda d: d != 0,
    "EQ": lambda d: d == 0,
}


@dataclasses.dataclass(frozen=True)
class Loop:
    """One while loop.

    Attributes:
        name: of the instruction.
        computation: where it stands.
        body: the computation that it repeats.
        op_name: JAX's name of it, or an empty string.
        trip_count: turns each time it is reached; None if they depend on data.
    """

    name: str
    computation: str
    body: str
    op_name: str
    trip_count: int | None


@dataclasses.dataclass(frozen=True)
class Runs:
    """How often things run in one step.

    Attributes:
        times: runs of each computation by name, 0 for one that is never reached. What a
            reduction or a sort applies to elements counts as 0.
        loops: all while loops that are reached.
        conditionals: names of the conditionals that are reached; every branch of one counts as
            if it were taken, which is an upper bound.
        scheduled: the part of `times` in which the instructions of a computation run one after
            the other, for those that have one, in the order of the text: the entry, and what
            loops, conditionals and calls reach from there. The inside of a fusion or of an
            asynchronous wrapper is not among them.
    """

    times: dict[str, float]
    loops: tuple[Loop, ...]
    conditionals: tuple[str, ...]
    scheduled: dict[str, float]

    @property
    def unknown(self) -> tuple[Loop, ...]:
        """The loops whose turns depend on data."""
        return tuple(loop for loop in self.loops if loop.trip_count is None)

    def instructions(self, module: Module) -> Iterator[tuple[Computation, int, Instruction, float]]:
        """Yields what runs one after the other: computation, position there, instruction, runs."""
        for name, times in self.scheduled.items():
            computation = module.computation(name)
            for position, instruction in enumerate(computation.instructions):
                yield computation, position, instruction, times


def count_runs(module: Module, unknown_trip_count: float | None = None) -> Runs:
    """Counts the runs of each computation in one step.

    Loops multiply; a condition runs once more than its body. All branches of a conditional count
    as taken. Fusions, calls and asynchronous wrappers count once each time they are reached.

    Args:
        module: the program.
        unknown_trip_count: turns of a loop whose turns depend on data, such as the further turns
            of the dropless dispatch (`moe_jax/dispatch/turns.py`), which are 0 while the load is
            balanced. The result still names these loops.

    Raises:
        UserError: if there is such a loop and no number is given.
    """
    callers = Callers.of(module)
    times = dict.fromkeys(module.computations, 0.0)
    scheduled = dict.fromkeys(module.computations, 0.0)
    times[module.entry] = scheduled[module.entry] = 1.0
    loops, conditionals = [], []
    for name in _callers_first(module):
        computation = module.computation(name)
        if not times[name]:
            continue
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                loops.append(_loop(callers, computation, instruction))
                turns = _turns(loops[-1], unknown_trip_count)
            elif instruction.opcode == "conditional":
                conditionals.append(instruction.name)
            elif not instruction.is_wrapper:
                continue
            is_scheduled = instruction.opcode in ("while", "conditional", "call")
            for called in instruction.called:
                factor = 1.0
                if instruction.opcode == "while":
                    factor = turns + (called != loops[-1].body)
                times[called] += factor * times[name]
                scheduled[called] += factor * scheduled[name] * is_scheduled
    reached = {name: runs for name, runs in scheduled.items() if runs}
    return Runs(times, tuple(loops), tuple(conditionals), reached)


def _turns(loop: Loop, unknown: float | None) -> float:
    if loop.trip_count is not None:
        return loop.trip_count
    if unknown is None:
        raise UserError(
            f"the turns of the loop {loop.op_name or loop.name!r} depend on data; say how many to "
            "count with unknown_trip_count"
        )
    return unknown


def _callers_first(module: Module) -> list[str]:
    """Returns the computations that the entry reaches, each after all that call it."""
    order: list[str] = []
    done: set[str] = set()
    stack = [(module.entry, False)]
    while stack:
        name, left = stack.pop()
        if left:
            order.append(name)
        elif name not in done:
            done.add(name)
            stack.append((name, True))
            for instruction in module.computation(name).instructions:
                stack += [(called, False) for called in instruction.called]
    return order[::-1]


def _loop(callers: Callers, computation: Computation, instruction: Instruction) -> Loop:
    return Loop(
        name=instruction.name,
        computation=computation.name,
        body=instruction.calls("body"),
        op_name=instruction.op_name,
        trip_count=trip_count(callers, computation, instruction),
    )


def trip_count(callers: Callers, computation: Computation, instruction: Instruction) -> int | None:
    """Returns the turns of a while loop each time it is reached; None if they depend on data.

    It is the compiler's `known_trip_count` where there is one. Else one counter has to begin at a
    constant, change by a constant, and be compared with a constant or with what no turn changes.

    Args:
        callers: of the module.
        computation: where the loop stands.
        instruction: the loop.
    """
    known = instruction.config("known_trip_count", "n")
    if known is not None:
        return int(known)
    module = callers.module
    body = module.computation(instruction.calls("body"))
    condition = module.computation(instruction.calls("condition"))
    initial = functools.partial(
        evaluate,
        module,
        computation,
        instruction.operands[0],
        parameter=callers.parameter(computation),
    )
    width = len(body.root.operands)
    varying = [i for i in _read(module, condition) if i >= width or not is_invariant(body, i)]
    if len(varying) != 1:
        return None
    counter = varying[0]

    def at(where: Computation, path: tuple[int, ...], x: int, name: str) -> int | None:
        def state(number: int, way: tuple[int, ...]) -> int | None:
            if way == (counter,):
                return x
            return initial(way) if way and is_invariant(body, way[0]) else None

        return evaluate(module, where, name or where.root.name, path, state)

    start = initial((counter,))
    if start is None:
        return None
    second = at(body, (counter,), start, "")
    third = None if second is None else at(body, (counter,), second, "")
    if second is None or third is None:
        return None
    if condition.root.opcode == "compare" and third - second == second - start:
        return _until(condition, at, start, second)
    return _simulate(condition, body, at, counter, start)


def _read(module: Module, computation: Computation) -> list[int]:
    """Returns which elements of its one tuple a loop's condition reads."""
    indices = {
        int(instruction.attributes["index"])
        for instruction in computation.instructions
        if instruction.opcode == "get-tuple-element"
        and computation.operand(instruction).opcode == "parameter"
    }
    return sorted(indices)


def _until(condition: Computation, at: _At, start: int, second: int) -> int | None:
    """Returns how often a comparison of linear sides holds from the start on."""
    root = condition.root
    differences = []
    for x in (start, second):
        left, right = (at(condition, (), x, operand) for operand in root.operands)
        if left is None or right is None:
            return None
        differences.append(left - right)
    difference, step = differences[0], differences[1] - differences[0]
    holds = _HOLDS[root.attributes["direction"]]
    if not holds(difference):
        return 0
    if step == 0:
        return None
    # The first turn at which it may fail lies next to where the difference passes 0.
    near = max(0, -difference // step)
    for turns in range(max(1, near - 1), near + 3):
        if not holds(difference + turns * step):
            return turns
    return None


def _simulate(
    condition: Computation, body: Computation, at: _At, counter: int, start: int
) -> int | None:
    """Returns how often a condition holds, by going through the turns."""
    value: int | None = start
    for turns in range(_LONGEST):
        goes_on = None if value is None else at(condition, (), value, "")
        if value is None or goes_on is None:
            return None
        if not goes_on:
            return turns
        value = at(body, (counter,), value, "")
    return None
