"""Step time of a scheduled program, by simulation of its instructions.

A chip has three resources that work concurrently: compute units, which execute the schedule in
order; links; and copies between memories. An asynchronous operation queues for its resource, and
the instruction that needs its result waits for its end.

| instruction          | seconds                                                           |
|----------------------|-------------------------------------------------------------------|
| matrix product       | the larger of FLOPs / (0.94 peak) and bytes / (0.8 HBM bandwidth) |
| the same, with code  | the larger of the compiler's cycles / clock and FLOPs / peak      |
| attention kernel     | FLOPs / (0.6 peak)                                                |
| other                | bytes / (0.8 HBM bandwidth)                                       |
| collective           | `moe_jax.cost_model.torus`: lower and upper estimate              |

0.94 is the compiler's own estimate for large products on v4, v5e and v5p; 0.8 is the efficiency of
streaming kernels. 0.6 for attention in tiles is an assumption, bracketed by 0.4 and 0.9: the
compiler does not price kernels. Latencies, and the time of gathers beyond their bytes, are not
modelled. Iterations of a loop do not overlap; a loop whose trip count depends on data has the
iterations that the caller gives; of a conditional the longest branch counts. Nothing here was
measured on a TPU.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

from moe_jax.cost_model.chips import Chip
from moe_jax.cost_model.hbm_traffic import HbmTraffic
from moe_jax.cost_model.torus import Torus
from moe_jax.hlo.collectives import Collective
from moe_jax.hlo.execution_counts import ExecutionCounts
from moe_jax.hlo.flops import MatrixProduct
from moe_jax.hlo.module import Instruction, Module

MATMUL_EFFICIENCY, HBM_EFFICIENCY, ATTENTION_EFFICIENCY = 0.94, 0.8, 0.6
# Name of a computation, and position of an instruction in it.
Location = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        seconds: total.
        matmul: in matrix products and kernels.
        other: in other instructions.
        exposed: waiting for collectives, by their location.
        copies: waiting for copies between memories.
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
    """

    module: Module
    counts: ExecutionCounts
    products: list[MatrixProduct]
    traffic: list[HbmTraffic]
    collectives: list[Collective]


def estimate_step_time(
    program: AnalyzedProgram, chip: Chip, torus: Torus, is_upper: bool
) -> StepTime:
    """Simulates a step.

    Args:
        program: scheduled.
        chip: with its peaks.
        torus: with its links.
        is_upper: whether to use the upper estimate of the collectives' time.
    """
    return _Simulation(program, chip, torus, is_upper).run()


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
    def __init__(self, program: AnalyzedProgram, chip: Chip, torus: Torus, is_upper: bool):
        self.program, self.chip, self.torus, self.is_upper = program, chip, torus, is_upper
        # Of one device; a chip may have two.
        self.peak = chip.peak_flops / chip.devices
        self.hbm_bandwidth = chip.hbm_bandwidth / chip.devices
        self.trip_counts = {
            (loop.computation, loop.name): loop.trip_count for loop in program.counts.loops
        }
        self.flops: defaultdict[Location, float] = defaultdict(float)
        self.kernels: set[Location] = set()
        self.attention: set[Location] = set()
        for product in program.products:
            self.flops[product.computation, product.position] += product.flops or 0.0
            if product.is_kernel:
                self.kernels.add((product.computation, product.position))
            if product.is_attention:
                self.attention.add((product.computation, product.position))
        self.traffic = {(each.computation, each.position): each for each in program.traffic}
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
        # Times at which links and copies become free, and operations that end at a position.
        free = {"links": 0.0, "copies": 0.0}
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
                free["copies"] = max(times.now, free["copies"]) + self._bytes_seconds(location)
                done = _done_position(computation.users, computation.position, instruction)
                ends[done].append(("copies", free["copies"], location))
            elif location not in self.started or location in self.flops:
                is_product = self.flops.get(location, 0.0) > 0 or location in self.kernels
                seconds = (
                    self._product_seconds(location) if is_product else self._bytes_seconds(location)
                )
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

    def _bytes_seconds(self, location: Location) -> float:
        traffic = self.traffic.get(location)
        if traffic is None:
            return 0.0
        return traffic.bytes / (HBM_EFFICIENCY * self.hbm_bandwidth)

    def _product_seconds(self, location: Location) -> float:
        if location in self.attention:
            return self.flops[location] / (ATTENTION_EFFICIENCY * self.peak)
        traffic = self.traffic.get(location)
        cycles = traffic.estimated_cycles if traffic else None
        if cycles is not None and self.chip.clock is not None:
            roofline = self.flops[location] / self.peak
            return max(cycles / self.chip.clock, roofline, 0.0)
        at_peak = self.flops[location] / (MATMUL_EFFICIENCY * self.peak)
        return max(at_peak, self._bytes_seconds(location))

    def _collective_seconds(self, collective: Collective) -> float:
        return self.torus.collective_seconds(collective)[1 if self.is_upper else 0]


def _done_position(
    users: Mapping[str, tuple[Instruction, ...]], position: Mapping[str, int], start: Instruction
) -> int:
    """Returns the position of the first instruction that waits for an asynchronous one."""
    waiting = [position[user.name] for user in users[start.name]]
    return min(waiting, default=position[start.name])
