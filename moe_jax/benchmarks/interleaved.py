"""Times compiled functions against each other in one interleaved run."""

import dataclasses
import statistics
from collections.abc import Callable

import jax

from moe_jax.benchmarks.matmul import seconds


@dataclasses.dataclass(frozen=True)
class Case:
    """A compiled function on its inputs.

    Attributes:
        run: runs the function once and waits for it.
        temporary_bytes: memory besides inputs and outputs, from the compiler's analysis.
    """

    run: Callable[[], object]
    temporary_bytes: int


def compile_case(function: Callable, *arguments: object) -> Case:
    """Compiles a function for these arguments and runs it once."""
    compiled = jax.jit(function).lower(*arguments).compile()
    memory = compiled.memory_analysis()

    def run() -> None:
        jax.block_until_ready(compiled(*arguments))

    run()
    return Case(run, memory.temp_size_in_bytes if memory is not None else 0)


@dataclasses.dataclass
class Times:
    """Times of every run of a case and of its reference right before it, in seconds."""

    case: list[float] = dataclasses.field(default_factory=list)
    reference: list[float] = dataclasses.field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Median time of the case."""
        return statistics.median(self.case)

    @property
    def ratio(self) -> float:
        """Median ratio to the reference right before, which cancels drifts of the machine."""
        return statistics.median(a / b for a, b in zip(self.case, self.reference, strict=True))


def measure(cases: dict[str, Case], references: dict[str, Case], rounds: int) -> dict[str, Times]:
    """Runs all cases in turn, `rounds` times, each right after its reference.

    Each is timed in its second run of two, as in training, where a step follows a step: the first
    run after another program pays for that program's memory (17% was measured).
    """
    times = {name: Times() for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            times[name].reference.append(_second_run(references[name]))
            times[name].case.append(_second_run(case))
    return times


def _second_run(case: Case) -> float:
    case.run()
    return seconds(case.run)
