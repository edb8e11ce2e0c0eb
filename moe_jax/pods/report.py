"""Report of a compiled step: memory, communication, FLOPs and estimated step time."""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from moe_jax.cost_model.communication_bounds import CommunicationBound, expert_buffer_occupancy
from moe_jax.cost_model.hbm_traffic import find_hbm_traffic
from moe_jax.cost_model.memory_usage import MemoryUsage, read_memory_usage
from moe_jax.cost_model.named_scopes import component_of
from moe_jax.cost_model.step_time import AnalyzedProgram, StepTime, estimate_step_time
from moe_jax.cost_model.topologies import Topology
from moe_jax.cost_model.torus import Torus
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.hlo.collectives import Collective, find_collectives
from moe_jax.hlo.execution_counts import ExecutionCounts, count_executions
from moe_jax.hlo.flops import find_matrix_products, total_flops, without_cost_estimate
from moe_jax.hlo.module import Module
from moe_jax.hlo.parser import parse_module
from moe_jax.hlo.row_accesses import find_row_accesses
from moe_jax.pods.compiler import CompilerOutput

GIB = float(1 << 30)
METHOD = (
    "simulation of the compiler's schedule: products at 0.94 of the peak{cycles}, kernels by "
    "their code at 0.78 of it, gathers and scatters row by row, other instructions at 0.8 of the "
    "HBM bandwidth, collectives overlapped where the compiler starts them early; from all links to "
    "one torus axis at a time. Checked against published steps, not measured on a TPU"
)

NO_CODE = (
    "; no code was generated, which takes minutes and can still fail, for lack of VMEM or for an "
    "option that the chip does not support: --full does it"
)
NO_TIME = (
    "memory is the compiler's own buffer assignment; no time is estimated for a step that does not "
    "fit"
)
BETWEEN_SLICES = (
    "the step time leaves out communication between slices, over the data-centre network",
)


@dataclasses.dataclass(frozen=True)
class CollectiveSummary:
    """Collectives of one kind over the same mesh axes, per device and step.

    Attributes:
        kind: of collective.
        axes: mesh axes; None if no set of axes has these groups.
        count: executions.
        bytes: payload, as `moe_jax.hlo.collectives` defines it.
        bound_bytes: lower bound of `communication_bounds`; 0 where the step need not send.
        seconds: on the links, by the lower estimate; None if the step does not fit.
        exposed: seconds that computation waits for them, queueing for the links included.
    """

    kind: str
    axes: tuple[str, ...] | None
    count: float
    bytes: float
    bound_bytes: float
    seconds: float | None
    exposed: float | None


@dataclasses.dataclass(frozen=True)
class CompileReport:
    """Memory, communication, FLOPs and estimated time of a step on a topology.

    Attributes:
        topology: chips and links.
        mesh: size of every mesh axis.
        memory: of a device.
        collectives: by kind and mesh axes.
        flops: matrix-product FLOPs of a device, as compiled.
        model_flops: FLOPs of a device by `moe_jax/flops.py`: forward and backward once.
        tokens: per device and step.
        fastest: step time by the lower estimate of the collectives' time; None if the step does
            not fit.
        slowest: step time by the upper estimate.
        unknown_loops: loops whose trip counts depend on data, which the step time leaves out.
        unpriced_kernels: kernels without a cost estimate, which the step time leaves out.
        warnings: of the compiler, and about omissions of the step time.
        parts: seconds of instructions by model component, without waiting.
        compile_seconds: wall time of the compilation.
        full: whether code was generated.
        is_exceeded: whether the compiler ran out of memory.
    """

    topology: Topology
    mesh: Mapping[str, int]
    memory: MemoryUsage
    collectives: tuple[CollectiveSummary, ...]
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
        """True if the memory of a device suffices, by the compiler and by its limit."""
        return not self.is_exceeded and _is_within(self.memory, self.topology)

    @property
    def bracket(self) -> tuple[StepTime, StepTime] | None:
        """The fastest and the slowest step time; None if the step does not fit."""
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
        """Throughput at the fastest step time; None if the step does not fit."""
        if self.fastest is None:
            return None
        return self.tokens * self.topology.chip.devices / self.fastest.seconds

    def chip_days(self, tokens: float) -> float | None:
        """Returns chip-days for a number of tokens at the fastest step time, or None."""
        throughput = self.tokens_per_second_per_chip
        return None if throughput is None else tokens / throughput / 86400

    def as_dict(self, tokens: float) -> dict[str, Any]:
        """Returns the report for JSON, with bytes and seconds per device and step.

        All times of a step that does not fit are None.

        Args:
            tokens: token budget for chip-days.
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
                for row in self.collectives
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
        """Description of how the step time was estimated."""
        if self.fastest is None:
            return NO_TIME
        if self.full:
            return METHOD.format(cycles=" or by the compiler's cycles")
        return METHOD.format(cycles="") + NO_CODE


def build_report(
    experiment: Experiment, topology: Topology, compiled: CompilerOutput
) -> CompileReport:
    """Builds the report from the compiler's output.

    Args:
        experiment: whose step was compiled.
        topology: compilation target.
        compiled: output of the compiler.

    Raises:
        UserError: if the compiler ran out of memory before it had a program.
    """
    if not compiled.program:
        raise UserError(
            f"the TPU compiler ran out of memory: {' '.join(str(compiled.exceeded).split())}"
        )
    module = parse_module(compiled.program)
    # Further rounds of the dropless dispatch: none while experts are balanced.
    counts = count_executions(module, unknown_trip_count=0)
    memory = read_memory_usage(
        compiled.buffer_assignment, compiled.live_ranges, compiled.argument_bytes, module
    )
    is_exceeded = compiled.exceeded is not None
    fits = not is_exceeded and _is_within(memory, topology)
    program = _analyze(module, counts, expert_buffer_occupancy(experiment, compiled.mesh))
    chip, dimensions = topology.chip, len(topology.shape)
    coordinates = np.array(compiled.coordinates)[:, :dimensions]
    bandwidth = chip.ici_link_bandwidth
    torus = Torus(topology.shape, topology.wraps, bandwidth, coordinates, chip.devices)
    fastest = estimate_step_time(program, chip, torus, is_upper=False) if fits else None
    slowest = estimate_step_time(program, chip, torus, is_upper=True) if fits else None
    devices = math.prod(compiled.mesh.values())
    tokens = experiment.data.batch_size * experiment.data.sequence_length / devices
    return CompileReport(
        topology=topology,
        mesh=compiled.mesh,
        memory=memory,
        collectives=tuple(_summarize_collectives(program, compiled, torus, fastest)),
        flops=total_flops(program.products),
        model_flops=experiment.train_flops_per_token() * tokens,
        tokens=tokens,
        fastest=fastest,
        slowest=slowest,
        unknown_loops=tuple(loop.op_name or loop.name for loop in counts.data_dependent_loops),
        unpriced_kernels=tuple(
            each.op_name or each.name for each in without_cost_estimate(program.products)
        ),
        warnings=compiled.warnings + (BETWEEN_SLICES if topology.slices > 1 else ()),
        parts={} if fastest is None else _component_seconds(fastest),
        compile_seconds=compiled.seconds,
        full=compiled.full,
        is_exceeded=is_exceeded,
    )


def _analyze(module: Module, counts: ExecutionCounts, occupancy: float) -> AnalyzedProgram:
    return AnalyzedProgram(
        module,
        counts,
        find_matrix_products(module, counts, occupancy),
        find_hbm_traffic(module, counts),
        find_collectives(module, counts),
        find_row_accesses(module, counts),
    )


def _is_within(memory: MemoryUsage, topology: Topology) -> bool:
    return memory.total <= topology.chip.hbm_limit_per_device


def _component_seconds(time: StepTime) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for op_name, seconds in time.by_name.items():
        found[component_of(op_name) or "the rest"] += seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _summarize_collectives(
    program: AnalyzedProgram, compiled: CompilerOutput, torus: Torus, time: StepTime | None
) -> list[CollectiveSummary]:
    """Returns collectives by kind and axes with their bounds, the most exposed first."""
    names = list(compiled.mesh)
    mesh = np.arange(math.prod(compiled.mesh.values())).reshape(tuple(compiled.mesh.values()))
    rows: dict[tuple[str, tuple[str, ...] | None], dict[str, float]] = {}
    # Collectives that one instruction starts share its exposed time.
    started = Counter((each.computation, each.start) for each in program.collectives)
    for each in program.collectives:
        location = each.computation, each.start
        row = rows.setdefault((_kind(each), each.mesh_axes(mesh, names)), defaultdict(float))
        row["count"] += each.executions
        row["bytes"] += each.payload_bytes * each.executions
        if time is not None:
            row["seconds"] += torus.collective_seconds(each)[0] * each.executions
            row["exposed"] += time.exposed.get(location, 0.0) / started[location]
    bounds = _bounds(compiled.bounds)
    for key in bounds:
        rows.setdefault(key, defaultdict(float))
    found = [
        CollectiveSummary(
            *(*key, row["count"], row["bytes"], bounds.get(key, 0.0)),
            seconds=None if time is None else row["seconds"],
            exposed=None if time is None else row["exposed"],
        )
        for key, row in rows.items()
    ]
    return sorted(found, key=lambda row: (-(row.exposed or 0.0), -row.bytes))


def _kind(collective: Collective) -> str:
    """Returns the kind, with a name of its own for an all-reduce in place of an all-gather."""
    return "all-gather as all-reduce" if collective.is_gather else collective.kind


def _bounds(
    bounds: tuple[CommunicationBound, ...],
) -> dict[tuple[str, tuple[str, ...] | None], float]:
    found: dict[tuple[str, tuple[str, ...] | None], float] = defaultdict(float)
    for bound in bounds:
        found[bound.kind, bound.axes] += bound.bytes
    return dict(found)
