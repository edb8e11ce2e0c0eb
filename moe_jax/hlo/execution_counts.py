"""Execution counts of the computations of a program in one step.

XLA's own `cost_analysis` counts the body of a loop once; here it counts once for each iteration.
"""

import dataclasses
from collections.abc import Iterator

from moe_jax.errors import UserError
from moe_jax.hlo.evaluator import CallGraph
from moe_jax.hlo.module import Computation, Instruction, Module
from moe_jax.hlo.while_loops import WhileLoop, analyze_while


@dataclasses.dataclass(frozen=True)
class ExecutionCounts:
    """Executions in one step.

    Attributes:
        computations: executions of each computation by name, 0 for an unreachable one. What a
            reduction or a sort applies to elements counts as 0.
        loops: all reachable while loops.
        scheduled: the part of `computations` whose instructions are executed one after the other,
            in the order of the text: the entry, and what loops, conditionals and calls reach from
            there. Computations inside a fusion or an asynchronous wrapper are not among them.
    """

    computations: dict[str, float]
    loops: tuple[WhileLoop, ...]
    scheduled: dict[str, float]

    @property
    def data_dependent_loops(self) -> tuple[WhileLoop, ...]:
        """Loops whose trip counts depend on data."""
        return tuple(loop for loop in self.loops if loop.trip_count is None)

    def instructions(self, module: Module) -> Iterator[tuple[Computation, int, Instruction, float]]:
        """Yields scheduled instructions: computation, position there, instruction, executions."""
        for name, executions in self.scheduled.items():
            computation = module.computation(name)
            for position, instruction in enumerate(computation.instructions):
                yield computation, position, instruction, executions


def count_executions(module: Module, unknown_trip_count: float | None = None) -> ExecutionCounts:
    """Counts the executions of each computation in one step.

    Loops multiply; a condition is executed once more than its body. All branches of a conditional
    count as taken, which is an upper bound. Fusions, calls and asynchronous wrappers count once
    each time they are reached.

    Args:
        module: the program.
        unknown_trip_count: iterations of a loop whose trip count depends on data, such as the
            further rounds of the dropless dispatch, which are 0 while the load is balanced. The
            result still lists these loops.

    Raises:
        UserError: if there is such a loop and no number is given.
    """
    call_graph = CallGraph.build(module)
    counts = dict.fromkeys(module.computations, 0.0)
    scheduled = dict.fromkeys(module.computations, 0.0)
    counts[module.entry] = scheduled[module.entry] = 1.0
    loops = []
    for name in _topological_order(module):
        computation = module.computation(name)
        if not counts[name]:
            continue
        for instruction in computation.instructions:
            if instruction.opcode == "while":
                loops.append(analyze_while(call_graph, computation, instruction))
                iterations = _iterations(loops[-1], unknown_trip_count)
            elif instruction.opcode != "conditional" and not instruction.is_wrapper:
                continue
            is_scheduled = instruction.opcode in ("while", "conditional", "call")
            for called in instruction.called:
                factor = 1.0
                if instruction.opcode == "while":
                    factor = iterations + (called != loops[-1].body)
                counts[called] += factor * counts[name]
                scheduled[called] += factor * scheduled[name] * is_scheduled
    reached = {name: executions for name, executions in scheduled.items() if executions}
    return ExecutionCounts(counts, tuple(loops), reached)


def _iterations(loop: WhileLoop, unknown: float | None) -> float:
    if loop.trip_count is not None:
        return loop.trip_count
    if unknown is None:
        raise UserError(
            f"the trip count of the loop {loop.op_name or loop.name!r} depends on data: give the "
            "number to count as unknown_trip_count"
        )
    return unknown


def _topological_order(module: Module) -> list[str]:
    """Returns the computations reachable from the entry, callers before what they call."""
    order: list[str] = []
    done: set[str] = set()
    stack = [(module.entry, False)]
    while stack:
        name, is_finished = stack.pop()
        if is_finished:
            order.append(name)
        elif name not in done:
            done.add(name)
            stack.append((name, True))
            for instruction in module.computation(name).instructions:
                stack += [(called, False) for called in instruction.called]
    return order[::-1]
