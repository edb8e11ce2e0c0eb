"""What `moe-jax compile` says of a step: does it fit, what travels, how fast."""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_jax.errors import UserError
from moe_jax.experiment import Experiment
from moe_jax.pods.bounds import Bound, filled_share
from moe_jax.pods.collectives import Collective, find_collectives
from moe_jax.pods.compiler import Compilation
from moe_jax.pods.hbm_traffic import find_traffic
from moe_jax.pods.hlo import parse_module
from moe_jax.pods.hlo_flops import find_products, total_flops, unpriced
from moe_jax.pods.loops import count_runs
from moe_jax.pods.memory import Memory, read_memory
from moe_jax.pods.scopes import scope_of
from moe_jax.pods.step_time import Program, StepTime, estimate
from moe_jax.pods.topologies import Topology
from moe_jax.pods.torus import Torus

GIB = float(1 << 30)
METHOD = (
    "simulated along the compiler's schedule: products at 0.94 of the peak{cycles}, other "
    "instructions at 0.8 of the HBM bandwidth, collectives overlapped where the compiler starts "
    "them early; from what the links allow to one torus axis at a time. Not measured on a TPU"
)

NO_CODE = (
    "; no code was generated, which takes minutes and can still fail, for want of fast memory or "
    "for an option that the chip does not know: --full does it"
)
NOT_RUN = (
    "memory is the compiler's own assignment of buffers; what does not fit cannot run, so that no "
    "time was estimated"
)
BETWEEN_SLICES = (
    "the step time leaves out what travels between slices, over the data-centre network",
)


@dataclasses.dataclass(frozen=True)
class Moved:
    """Collectives of a kind over the same mesh axes, a chip and step.

    Attributes:
        kind: of collective.
        axes: mesh axes; None for groups that are those of no set of axes.
        count: runs.
        bytes: payload, by the definition of `collectives`.
        bound_bytes: the least, by `bounds`; 0 for what the step need not send.
        seconds: on the links, at the faster end of the bracket; None for what cannot run.
        exposed: of them, while nothing is computed.
    """

    kind: str
    axes: tuple[str, ...] | None
    count: float
    bytes: float
    bound_bytes: float
    seconds: float | None
    exposed: float | None


@dataclasses.dataclass(frozen=True)
class Answer:
    """All that is known of a step on a topology.

    Attributes:
        topology: chips and links.
        mesh: size of every mesh axis.
        memory: of a chip.
        moved: what travels.
        flops: of matrix products a chip, as compiled.
        model_flops: of a chip by `moe_jax/flops.py`: forward and backward once.
        tokens: a chip and step.
        fastest: step time where collectives take what the links allow; None for what does not
            fit, which cannot run.
        slowest: the same with one torus axis at a time.
        unknown_loops: loops whose turns depend on data, which the step time leaves out.
        unpriced_kernels: kernels that do not say what they cost, which the step time leaves out.
        warnings: of the compiler, and of what was left out.
        parts: seconds of instructions by part of the step, without waiting.
        compile_seconds: that the compiler took.
        full: whether the code was generated too.
        is_exceeded: whether the compiler gave up for want of memory.
    """

    topology: Topology
    mesh: Mapping[str, int]
    memory: Memory
    moved: tuple[Moved, ...]
    flops: float
    model_flops: float
    tokens: float
    fastest: StepTime | None
    slowest: StepTime | None
    unknown_loops: tuple[str, ...]
    unpriced_kernels: tuple[str, ...]
    warnings: tuple[str, ...]
    parts: Mapping[str, float]
    compile_seconds: float
    full: bool
    is_exceeded: bool = False

    @property
    def fits(self) -> bool:
        """Whether a chip's memory holds it, by the compiler or its limit."""
        return not self.is_exceeded and _is_within(self.memory, self.topology)

    @property
    def bracket(self) -> tuple[StepTime, StepTime] | None:
        """The fastest and the slowest step; None for what cannot run."""
        if self.fastest is None or self.slowest is None:
            return None
        return self.fastest, self.slowest

    def utilisation(self, time: StepTime) -> float:
        """Returns the model FLOPs utilisation (MFU)."""
        return self.model_flops / (self.peak * time.seconds)

    @property
    def peak(self) -> float:
        """FLOP/s of a JAX device."""
        return self.topology.chip.peak_flops / self.topology.chip.devices

    @property
    def tokens_per_second_per_chip(self) -> float | None:
        """At the faster end of the bracket; None for what cannot run."""
        if self.fastest is None:
            return None
        return self.tokens * self.topology.chip.devices / self.fastest.seconds

    def chip_days(self, tokens: float) -> float | None:
        """Returns chip-days for a number of tokens, at the faster end of the bracket, or None."""
        speed = self.tokens_per_second_per_chip
        return None if speed is None else tokens / speed / 86400

    def as_dict(self, tokens: float) -> dict[str, Any]:
        """Returns it for JSON; bytes and seconds, a chip and step.

        Of what does not fit, all that is measured in time is None: it cannot run.

        Args:
            tokens: budget that chip-days are for.
        """
        memory, limit = self.memory, self.topology.chip.hbm_limit_per_device
        return {
            "topology": str(self.topology),
            "chips": self.topology.chips,
            "mesh": dict(self.mesh),
            "fits": self.fits,
            "hbm_gib": memory.total / GIB,
            "hbm_limit_gib": limit / GIB,
            "memory_bytes": {**memory.parts, "heap": memory.heap},
            "largest": [{"what": what, "bytes": size} for what, size in memory.largest(3)],
            **self._times(),
            "flops": self.flops,
            "model_flops": self.model_flops,
            "tokens_per_second_per_chip": self.tokens_per_second_per_chip,
            "token_budget": tokens,
            "chip_days": self.chip_days(tokens),
            "parts": dict(self.parts),
            "collectives": [
                {**dataclasses.asdict(row), "axis": "+".join(row.axes) if row.axes else None}
                for row in self.moved
            ],
            "unknown_loops": list(self.unknown_loops),
            "unpriced_kernels": list(self.unpriced_kernels),
            "warnings": list(self.warnings),
            "method": self.method,
            "compile_seconds": self.compile_seconds,
            "full": self.full,
        }

    def _times(self) -> dict[str, Any]:
        if self.fastest is None or self.slowest is None:
            names = ("step_seconds", "step_seconds_high", "mfu", "mfu_low", "seconds")
            return dict.fromkeys(names)
        return {
            "step_seconds": self.fastest.seconds,
            "step_seconds_high": self.slowest.seconds,
            "mfu": self.utilisation(self.fastest),
            "mfu_low": self.utilisation(self.slowest),
            "seconds": {
                "products": self.fastest.matmul,
                "other": self.fastest.other,
                "copies": self.fastest.copies,
                "collectives": sum(self.fastest.exposed.values()),
            },
        }

    @property
    def method(self) -> str:
        """How the step time was found, in two sentences."""
        if self.fastest is None:
            return NOT_RUN
        if self.full:
            return METHOD.format(cycles=" or by the compiler's cycles")
        return METHOD.format(cycles="") + NO_CODE


def read_answer(described: Experiment, topology: Topology, compiled: Compilation) -> Answer:
    """Reads what the compiler wrote of a step.

    Args:
        described: what was compiled.
        topology: for what.
        compiled: what it wrote.

    Raises:
        UserError: if the memory was exceeded before there was a program.
    """
    if not compiled.program:
        raise UserError(f"the TPU compiler gave up: {' '.join(str(compiled.exceeded).split())}")
    module = parse_module(compiled.program)
    # Further turns of dispatches without a capacity: none while experts are balanced.
    runs = count_runs(module, unknown_trip_count=0)
    memory = read_memory(compiled.buffers, compiled.live, compiled.argument_bytes, module)
    is_exceeded = compiled.exceeded is not None
    fits = not is_exceeded and _is_within(memory, topology)
    program = Program(
        module,
        runs,
        find_products(module, runs, filled_share(described, compiled.mesh)),
        find_traffic(module, runs) if fits else [],
        find_collectives(module, runs),
    )
    chip, dimensions = topology.chip, len(topology.shape)
    places = np.array(compiled.coordinates)[:, :dimensions]
    torus = Torus(topology.shape, topology.wraps, chip.ici_link_bandwidth, places, chip.devices)
    fastest = estimate(program, chip, torus, False) if fits else None
    slowest = estimate(program, chip, torus, True) if fits else None
    devices = math.prod(compiled.mesh.values())
    tokens = described.data.batch_size * described.data.sequence_length / devices
    return Answer(
        topology=topology,
        mesh=compiled.mesh,
        memory=memory,
        moved=tuple(_moved(program, compiled, torus, fastest)),
        flops=total_flops(program.products),
        model_flops=described.train_flops_per_token() * tokens,
        tokens=tokens,
        fastest=fastest,
        slowest=slowest,
        unknown_loops=tuple(loop.op_name or loop.name for loop in runs.unknown),
        unpriced_kernels=tuple(each.op_name or each.name for each in unpriced(program.products)),
        warnings=compiled.warnings + (BETWEEN_SLICES if topology.slices > 1 else ()),
        parts={} if fastest is None else _parts(fastest),
        compile_seconds=compiled.seconds,
        full=compiled.full,
        is_exceeded=is_exceeded,
    )


def _is_within(memory: Memory, topology: Topology) -> bool:
    return memory.total <= topology.chip.hbm_limit_per_device


def _parts(time: StepTime) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for op_name, seconds in time.by_name.items():
        found[scope_of(op_name) or "the rest"] += seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _moved(
    program: Program, compiled: Compilation, torus: Torus, time: StepTime | None
) -> list[Moved]:
    """Returns collectives by kind and axes beside the bounds, the most exposed first."""
    names = list(compiled.mesh)
    mesh = np.arange(math.prod(compiled.mesh.values())).reshape(tuple(compiled.mesh.values()))
    rows: dict[tuple[str, tuple[str, ...] | None], dict[str, float]] = {}
    # Those that one instruction starts are waited for together.
    started = Counter((each.computation, each.start) for each in program.collectives)
    for each in program.collectives:
        place = each.computation, each.start
        row = rows.setdefault((_kind(each), each.axes(mesh, names)), defaultdict(float))
        row["count"] += each.runs
        row["bytes"] += each.payload_bytes * each.runs
        if time is not None:
            row["seconds"] += torus.seconds_of(each)[0] * each.runs
            row["exposed"] += time.exposed.get(place, 0.0) / started[place]
    bounds = _bounds(compiled.bounds)
    for key in bounds:
        rows.setdefault(key, defaultdict(float))
    found = [
        Moved(
            *(*key, row["count"], row["bytes"], bounds.get(key, 0.0)),
            seconds=None if time is None else row["seconds"],
            exposed=None if time is None else row["exposed"],
        )
        for key, row in rows.items()
    ]
    return sorted(found, key=lambda row: (-(row.exposed or 0.0), -row.bytes))


def _kind(collective: Collective) -> str:
    """Returns the kind; an all-reduce that stands for an all-gather is named so."""
    return "all-gather as all-reduce" if collective.is_gather else collective.kind


def _bounds(bounds: tuple[Bound, ...]) -> dict[tuple[str, tuple[str, ...] | None], float]:
    found: dict[tuple[str, tuple[str, ...] | None], float] = defaultdict(float)
    for bound in bounds:
        found[bound.kind, bound.axes] += bound.bytes
    return dict(found)
