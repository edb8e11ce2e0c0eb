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
        run: runs it once and waits.
        temporary_bytes: memory it takes beside inputs and outputs, by the compiler's account.
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


def measure(cases: dict[str, Case], rounds: int) -> dict[str, list[float]]:
    """Runs all cases in turn, `rounds` times.

    Returns:
        seconds of every run, by case, in order: runs of the same round are neighbours in time.
    """
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            times[name].append(seconds(case.run))
    return times


def ratio(times: list[float], to: list[float]) -> float:
    """Returns the median ratio of runs of the same round: a machine that drifts drifts for both."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))
