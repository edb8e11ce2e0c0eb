"""Step time of a scheduled program, by simulation of its instructions.

A chip has resources that work concurrently: compute units, which execute the schedule in order;
links to other chips; copies between memories; and the link to the host, in either direction. An
asynchronous operation queues for its resource, and the instruction that needs its result waits for
its end.

Instructions take the seconds of `moe_jax.cost_model.instruction_times`, collectives those of
`moe_jax.cost_model.torus`, a lower and an upper estimate.

Iterations of a loop do not overlap; a loop whose trip count depends on data has the iterations that
the caller gives; of a conditional the longest branch counts. Estimates were held against published
steps of another framework (docs/results/estimate.md); nothing was measured on a TPU here.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

from moe_jax.cost_model.chips import Chip
from moe_jax.cost_model.hbm_traffic import HbmTraffic
from moe_jax.cost_model.instruction_times import PRICES, InstructionTimes, Location, Prices
from moe_jax.cost_model.torus import Torus
from moe_jax.hlo.collectives import Collective
from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.flops import MatrixProduct
from moe_jax.hlo.module import Instruction, Module
from moe_jax.hlo.row_accesses import RowAccess, Sort


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        seconds: total.
        matmul: in matrix products and kernels.
        other: in other instructions.
        exposed: waiting for collectives, by their location.
        copies: waiting for copies between memories, the host's included.
        by_name: in products and other instructions, by JAX's name of them.
    """

    seconds: float
    matmul: float
    other: float
    exposed: Mapping[Location, float]
    copies: float
    by_name: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class AnalyzedProgram:
    """A program and its analyses.

    Attributes:
        module: the program.
        counts: executions of its computations.
        products: matrix products and kernels.
        traffic: HBM traffic of its instructions.
        collectives: its collectives.
        rows: its gathers, scatters and sorts.
    """

    module: Module
    counts: ExecutionCounts
    products: list[MatrixProduct]
    traffic: list[HbmTraffic]
    collectives: list[Collective]
    rows: list[RowAccess | Sort] = dataclasses.field(default_factory=list)


def estimate_step_time(
    program: AnalyzedProgram,
    chip: Chip,
    torus: Torus,
    is_upper: bool,
    prices: Prices = PRICES,
) -> StepTime:
    """Simulates a step.

    Args:
        program: scheduled.
        chip: with its peaks.
        torus: with its links.
        is_upper: whether to use the upper estimate of the collectives' time.
        prices: efficiencies and rates of instructions.
    """
    times = InstructionTimes(program.products, program.traffic, program.rows, chip, prices)
    return _Simulation(program, times, torus, is_upper).run()


@dataclasses.dataclass
class _Times:
    """Simulated seconds of one execution of a computation, in total and by category."""

    now: float = 0.0
    spent: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    exposed: defaultdict[Location, float] = dataclasses.field(
        default_factory=lambda: defaultdict(float)
    )

    names: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def add(self, other: "_Times", times: float) -> None:
        """Adds several executions of another computation."""
        self.now += other.now * times
        for name, seconds in other.spent.items():
            self.spent[name] += seconds * times
        for location, seconds in other.exposed.items():
            self.exposed[location] += seconds * times
        for name, seconds in other.names.items():
            self.names[name] += seconds * times


class _Simulation:
    def __init__(
        self, program: AnalyzedProgram, times: InstructionTimes, torus: Torus, is_upper: bool
    ):
        self.program, self.times, self.torus, self.is_upper = program, times, torus, is_upper
        self.trip_counts = {
            (loop.computation, loop.name): loop.trip_count for loop in program.counts.loops
        }
        self.started: dict[Location, list[Collective]] = defaultdict(list)
        for collective in program.collectives:
            self.started[collective.computation, collective.start].append(collective)
        self.known: dict[str, _Times] = {}

    def run(self) -> StepTime:
        times = self.computation(self.program.module.entry)
        return StepTime(
            seconds=times.now,
            matmul=times.spent["matmul"],
            other=times.spent["other"],
            exposed=dict(times.exposed),
            copies=times.spent["copies"],
            by_name=dict(times.names),
        )

    def computation(self, name: str) -> _Times:
        """Returns the times of one execution of a computation."""
        if name not in self.known:
            self.known[name] = self._simulate(name)
        return self.known[name]

    def _simulate(self, name: str) -> _Times:
        computation = self.program.module.computation(name)
        times = _Times()
        # Times at which resources become free, and operations that end at a position.
        free: defaultdict[str, float] = defaultdict(float)
        ends: dict[int, list[tuple[str, float, Location]]] = defaultdict(list)
        for position, instruction in enumerate(computation.instructions):
            location = (name, position)
            for resource, end, start in ends.pop(position, []):
                self._wait(times, resource, end, start)
            for collective in self.started.get(location, []):
                begin = max(times.now, free["links"])
                free["links"] = begin + self._collective_seconds(collective)
                if collective.is_async:
                    ends[collective.done].append(("links", free["links"], location))
                else:
                    self._wait(times, "links", free["links"], location)
            if instruction.opcode in ("while", "conditional", "call"):
                self._called(times, name, instruction)
            elif instruction.opcode.endswith("-start") and location not in self.started:
                link = self.times.copies_over(location)
                free[link] = max(times.now, free[link]) + self.times.bytes_seconds(location)
                done = _done_position(computation.users, computation.position, instruction)
                ends[done].append((link, free[link], location))
            elif location not in self.started or self.times.has_products(location):
                is_product = self.times.is_product(location)
                seconds = self.times.seconds(location)
                times.now += seconds
                times.spent["matmul" if is_product else "other"] += seconds
                times.names[instruction.op_name] += seconds
        for resource, end, start in (each for waiting in ends.values() for each in waiting):
            self._wait(times, resource, end, start)
        return times

    def _wait(self, times: _Times, resource: str, end: float, start: Location) -> None:
        """Advances to the end of an asynchronous operation, and records the waiting."""
        waited = max(end - times.now, 0.0)
        times.now += waited
        if resource == "links":
            times.exposed[start] += waited
        else:
            times.spent["copies"] += waited

    def _called(self, times: _Times, name: str, instruction: Instruction) -> None:
        if instruction.opcode == "while":
            iterations = self.trip_counts.get((name, instruction.name))
            body = instruction.called_as("body")
            if iterations is None:
                counts = self.program.counts.computations
                iterations = round(counts[body] / counts[name]) if counts[name] else 0
            times.add(self.computation(instruction.called_as("condition")), iterations + 1)
            times.add(self.computation(body), iterations)
        elif instruction.opcode == "call":
            for called in instruction.called:
                times.add(self.computation(called), 1)
        else:
            branches = [self.computation(called) for called in instruction.called]
            times.add(max(branches, key=lambda branch: branch.now), 1)

    def _collective_seconds(self, collective: Collective) -> float:
        return self.torus.collective_seconds(collective)[1 if self.is_upper else 0]


def _done_position(
    users: Mapping[str, tuple[Instruction, ...]], position: Mapping[str, int], start: Instruction
) -> int:
    """Returns the position of the first instruction that waits for an asynchronous one."""
    waiting = [position[user.name] for user in users[start.name]]
    return min(waiting, default=position[start.name])
