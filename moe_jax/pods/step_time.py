"""How long a scheduled program takes, simulated instruction by instruction.

A chip is taken as three things that work at once: its compute units, which go through the schedule
in order; its links; and its copies between memories. What is started asynchronously waits for
its turn there, and the instruction that needs it waits for its end.

| what                 | seconds                                                           |
|----------------------|-------------------------------------------------------------------|
| matrix product       | the larger of FLOPs / (0.94 peak) and bytes / (0.8 HBM bandwidth) |
| the same, after code | the larger of the compiler's cycles / clock and FLOPs / peak      |
| other instruction    | bytes / (0.8 HBM bandwidth)                                       |
| collective           | `torus`: what the links allow, and one axis at a time             |

0.94 is what the compiler's own cycles say of large products on v4, v5e and v5p; 0.8 is what
streaming kernels reach. Neither latencies nor the time of gathers beyond their bytes are known. A
loop's turns do not overlap; a loop whose turns depend on data runs as often as the caller says; of
a conditional the longest branch counts. Nothing here was measured on a TPU.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

from moe_jax.pods.chips import Chip
from moe_jax.pods.collectives import Collective
from moe_jax.pods.hbm_traffic import Traffic
from moe_jax.pods.hlo import Instruction, Module
from moe_jax.pods.hlo_flops import Product
from moe_jax.pods.loops import Runs
from moe_jax.pods.torus import Torus

MATMUL_EFFICIENCY, HBM_EFFICIENCY = 0.94, 0.8
# Where a computation's instructions stand.
Place = tuple[str, int]


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        seconds: of all.
        matmul: in matrix products and kernels.
        other: in other instructions.
        exposed: waiting for collectives, by their place.
        copies: waiting for copies between memories.
        by_name: in products and other instructions, by JAX's name of them.
    """

    seconds: float
    matmul: float
    other: float
    exposed: Mapping[Place, float]
    copies: float
    by_name: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program and what was read of it.

    Attributes:
        module: the text, parsed.
        runs: of its computations.
        products: its matrix products.
        traffic: bytes of its instructions.
        collectives: its collectives.
    """

    module: Module
    runs: Runs
    products: list[Product]
    traffic: list[Traffic]
    collectives: list[Collective]


def estimate(program: Program, chip: Chip, torus: Torus, one_axis: bool) -> StepTime:
    """Simulates a step.

    Args:
        program: scheduled.
        chip: its peaks.
        torus: the links.
        one_axis: price collectives by the slower end of the bracket.
    """
    return _Simulation(program, chip, torus, one_axis).run()


@dataclasses.dataclass
class _Times:
    """What a computation takes, and of it what."""

    now: float = 0.0
    spent: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))
    exposed: defaultdict[Place, float] = dataclasses.field(
        default_factory=lambda: defaultdict(float)
    )

    names: defaultdict[str, float] = dataclasses.field(default_factory=lambda: defaultdict(float))

    def add(self, other: "_Times", times: float) -> None:
        """Runs another computation so many times."""
        self.now += other.now * times
        for name, seconds in other.spent.items():
            self.spent[name] += seconds * times
        for place, seconds in other.exposed.items():
            self.exposed[place] += seconds * times
        for name, seconds in other.names.items():
            self.names[name] += seconds * times


class _Simulation:
    def __init__(self, program: Program, chip: Chip, torus: Torus, one_axis: bool):
        self.program, self.chip, self.torus, self.one_axis = program, chip, torus, one_axis
        # Of a device: a chip may be two.
        self.peak = chip.peak_flops / chip.devices
        self.hbm_bandwidth = chip.hbm_bandwidth / chip.devices
        self.turns = {(loop.computation, loop.name): loop.trip_count for loop in program.runs.loops}
        self.flops: defaultdict[Place, float] = defaultdict(float)
        self.kernels: set[Place] = set()
        for product in program.products:
            self.flops[product.computation, product.position] += product.flops or 0.0
            if product.is_kernel:
                self.kernels.add((product.computation, product.position))
        self.traffic = {(each.computation, each.position): each for each in program.traffic}
        self.started: dict[Place, list[Collective]] = defaultdict(list)
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
        """Returns what one run of a computation takes."""
        if name not in self.known:
            self.known[name] = self._simulate(name)
        return self.known[name]

    def _simulate(self, name: str) -> _Times:
        computation = self.program.module.computation(name)
        times = _Times()
        # When the links and the copies are free, and what an instruction has to wait for.
        free = {"links": 0.0, "copies": 0.0}
        ends: dict[int, list[tuple[str, float, Place]]] = defaultdict(list)
        for position, instruction in enumerate(computation.instructions):
            place = (name, position)
            for what, end, start in ends.pop(position, []):
                self._wait(times, what, end, start)
            for collective in self.started.get(place, []):
                begin = max(times.now, free["links"])
                free["links"] = begin + self._collective_seconds(collective)
                if collective.is_async:
                    ends[collective.done].append(("links", free["links"], place))
                else:
                    self._wait(times, "links", free["links"], place)
            if instruction.opcode in ("while", "conditional", "call"):
                self._called(times, name, instruction)
            elif instruction.opcode.endswith("-start") and place not in self.started:
                free["copies"] = max(times.now, free["copies"]) + self._bytes_seconds(place)
                done = _done(computation.users, computation.position, instruction)
                ends[done].append(("copies", free["copies"], place))
            elif place not in self.started or place in self.flops:
                is_product = self.flops.get(place, 0.0) > 0 or place in self.kernels
                seconds = self._product_seconds(place) if is_product else self._bytes_seconds(place)
                times.now += seconds
                times.spent["matmul" if is_product else "other"] += seconds
                times.names[instruction.op_name] += seconds
        for what, end, start in (each for waiting in ends.values() for each in waiting):
            self._wait(times, what, end, start)
        return times

    def _wait(self, times: _Times, what: str, end: float, start: Place) -> None:
        """Waits for the end of something, and notes for how long."""
        waited = max(end - times.now, 0.0)
        times.now += waited
        if what == "links":
            times.exposed[start] += waited
        else:
            times.spent["copies"] += waited

    def _called(self, times: _Times, name: str, instruction: Instruction) -> None:
        if instruction.opcode == "while":
            turns = self.turns.get((name, instruction.name))
            body = instruction.calls("body")
            if turns is None:
                before = self.program.runs.times[name]
                turns = round(self.program.runs.times[body] / before) if before else 0
            times.add(self.computation(instruction.calls("condition")), turns + 1)
            times.add(self.computation(body), turns)
        elif instruction.opcode == "call":
            for called in instruction.called:
                times.add(self.computation(called), 1)
        else:
            branches = [self.computation(called) for called in instruction.called]
            times.add(max(branches, key=lambda branch: branch.now), 1)

    def _bytes_seconds(self, place: Place) -> float:
        traffic = self.traffic.get(place)
        if traffic is None:
            return 0.0
        return traffic.bytes / (HBM_EFFICIENCY * self.hbm_bandwidth)

    def _product_seconds(self, place: Place) -> float:
        traffic = self.traffic.get(place)
        cycles = traffic.estimated_cycles if traffic else None
        if cycles is not None and self.chip.clock is not None:
            roofline = self.flops[place] / self.peak
            return max(cycles / self.chip.clock, roofline, 0.0)
        at_peak = self.flops[place] / (MATMUL_EFFICIENCY * self.peak)
        return max(at_peak, self._bytes_seconds(place))

    def _collective_seconds(self, collective: Collective) -> float:
        return self.torus.seconds_of(collective)[1 if self.one_axis else 0]


def _done(
    users: Mapping[str, tuple[Instruction, ...]], position: Mapping[str, int], start: Instruction
) -> int:
    """Returns the position of the first instruction that waits for what another started."""
    waiting = [position[user.name] for user in users[start.name]]
    return min(waiting, default=position[start.name])
