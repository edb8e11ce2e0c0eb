"""Search for a variant that fits into memory, where the configuration does not."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from moe_jax.cost_model.topologies import Topology, known_slice_shapes
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.pods.compiler import CompileJob
from moe_jax.pods.lowering import argument_bytes
from moe_jax.pods.report import CompileReport
from moe_jax.pods.sweep import (
    AS_CONFIGURED,
    Trial,
    TrialObserver,
    load_experiment,
    minimum_bytes,
    try_variant,
    with_changes,
)
from moe_jax.pods.variants import (
    Variant,
    memory_saving_variants,
    mesh_file_variants,
    mesh_variants,
    tensor_variants,
)
from moe_jax.sharding.mesh import MeshConfig

# Most meshes to compile.
MAX_MESHES = 3
# Largest state of such a mesh, as a fraction of the configuration's.
_LESS_STATE = 0.9


def minimum_chips(experiment: Experiment, topology: Topology) -> int:
    """Returns the fewest chips whose memory holds the state and a batch, perfectly sharded."""
    whole = dataclasses.replace(experiment, mesh=MeshConfig())
    size = sum(argument_bytes(whole, 1).values())
    chip = topology.chip
    return math.ceil(size / chip.hbm_limit_per_device / chip.devices)


def smallest_slice(topology: Topology, min_chips: int) -> str | None:
    """Returns the smallest slice of the same chip with enough chips, or None."""
    shapes = [shape for shape in known_slice_shapes(topology.chip) if math.prod(shape) >= min_chips]
    shape = min(shapes, key=math.prod, default=None)
    return None if shape is None else f"{topology.chip.name}:{'x'.join(map(str, shape))}"


def nearest_fit(job: CompileJob, configured: CompileReport, observer: TrialObserver) -> list[Trial]:
    """Tries variants that need less memory until one fits.

    The order is: the package's mesh files for the chip; meshes with less state on a device; on the
    one with the least memory, fewer saved activations and then smaller micro-batches; tensor
    parallelism.

    Args:
        job: the configuration, which does not fit.
        configured: report of the configuration.
        observer: of the trials.

    Returns:
        The trials in order; if one fits, it is the last.
    """
    best = Trial(AS_CONFIGURED, (), configured)
    kinds: list[tuple[str, Callable[[CompileJob], Sequence[Variant]]]] = [
        ("mesh file", _mesh_files),
        ("mesh", _meshes),
        ("saving", lambda job: list(memory_saving_variants(load_experiment(job), job.topology))),
        ("tensor parallelism", lambda job: tensor_variants(load_experiment(job), job.topology)),
    ]
    trials: list[Trial] = []
    for kind, make in kinds:
        with observer.running(f"choosing variants: {kind}"):
            variants = make(with_changes(job, best))
        of_kind = []
        for number, variant in enumerate(variants, 1):
            prefix = f"{kind} {number} of {len(variants)}: "
            of_kind.append(try_variant(job, variant, best, observer, prefix))
            trials.append(of_kind[-1])
            if trials[-1].fits:
                return trials
        best = min([best, *of_kind], key=_total)
    return trials


def _total(trial: Trial) -> float:
    return math.inf if trial.report is None else trial.report.memory.total


def _mesh_files(job: CompileJob) -> list[Variant]:
    """Returns the package's mesh files for the chip with which the state fits."""
    limit = job.topology.chip.hbm_limit_per_device
    found = mesh_file_variants(load_experiment(job), job.topology)
    return [
        each
        for each in found
        if each.name not in job.source.files and _state_bytes(job, each) <= limit
    ]


def _meshes(job: CompileJob) -> list[Variant]:
    """Returns the meshes with the least state on a device."""
    limit = job.topology.chip.hbm_limit_per_device
    most = min(limit, _LESS_STATE * _state_bytes(job, Variant(AS_CONFIGURED, ())))
    # The sort is stable: of equal state, meshes with the most expert devices come first.
    found = [
        (round(size / limit, 2), variant)
        for variant in reversed(mesh_variants(load_experiment(job), job.topology))
        if (size := _state_bytes(job, variant)) <= most
    ]
    found.sort(key=lambda item: item[0])
    # Of meshes that differ only in their rules, the one with the least state.
    meshes: dict[tuple[str, ...], Variant] = {}
    for _, variant in found:
        shape = tuple(each for each in variant.bindings if not each.startswith("Mesh.rules"))
        meshes.setdefault(shape, variant)
    return list(meshes.values())[:MAX_MESHES]


def _state_bytes(job: CompileJob, variant: Variant) -> float:
    """Returns bytes of the state and a batch on one device; infinite for a rejected variant."""
    trial = Trial(variant.name, variant.bindings, None, files=variant.files)
    try:
        return sum(minimum_bytes(with_changes(job, trial)).values())
    except UserError:
        return math.inf
