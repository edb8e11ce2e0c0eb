"""Searches for a way to run that fits, where a configuration does not."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from moe_jax.errors import UserError
from moe_jax.experiment import Experiment
from moe_jax.pods.answer import Answer
from moe_jax.pods.compiler import Job
from moe_jax.pods.lowering import argument_bytes
from moe_jax.pods.sweep import (
    AS_CONFIGURED,
    Trial,
    Watch,
    changed,
    least_bytes,
    load_job,
    try_variant,
)
from moe_jax.pods.topologies import Topology, known_shapes
from moe_jax.pods.variants import (
    Variant,
    mesh_file_variants,
    mesh_variants,
    smaller_variants,
    tensor_variants,
)
from moe_jax.sharding.mesh import MeshConfig

# Meshes that are compiled, of those with less state a device than the configuration's.
MESHES = 3
# Less is less by so much.
_LESS = 0.9


def least_chips(described: Experiment, topology: Topology) -> int:
    """Returns the chips that can hold the state if each holds its share and nothing else."""
    whole = dataclasses.replace(described, mesh=MeshConfig())
    size = sum(argument_bytes(whole, 1).values())
    chip = topology.chip
    return math.ceil(size / chip.hbm_limit_per_device / chip.devices)


def slice_of(topology: Topology, chips: int) -> str | None:
    """Returns the smallest usual slice of the same chip with so many chips; None if none has."""
    shapes = [shape for shape in known_shapes(topology.chip) if math.prod(shape) >= chips]
    shape = min(shapes, key=math.prod, default=None)
    return None if shape is None else f"{topology.chip.name}:{'x'.join(map(str, shape))}"


def nearest_fit(job: Job, configured: Answer, watch: Watch) -> list[Trial]:
    """Tries what takes less memory until something fits, what matters most first.

    The package's mesh files for the chip, then meshes with less state a device; on what takes the
    least of these less kept for the backward pass, then smaller micro-batches; then tensor
    parallelism.

    Args:
        job: the configuration, which does not fit.
        configured: what the compiler says of it.
        watch: sees it go on.

    Returns:
        the trials in their order; if something fits, it is the last.
    """
    best = Trial(AS_CONFIGURED, (), configured)
    kinds: list[tuple[str, Callable[[Job], Sequence[Variant]]]] = [
        ("mesh file", _files),
        ("mesh", _meshes),
        ("saving", lambda job: list(smaller_variants(load_job(job), job.topology))),
        ("tensor parallelism", lambda job: tensor_variants(load_job(job), job.topology)),
    ]
    trials: list[Trial] = []
    for kind, make in kinds:
        with watch.trying(f"choosing what to try: {kind}"):
            variants = make(changed(job, best))
        of_kind = []
        for number, variant in enumerate(variants, 1):
            prefix = f"{kind} {number} of {len(variants)}: "
            of_kind.append(try_variant(job, variant, best, watch, prefix))
            trials.append(of_kind[-1])
            if trials[-1].fits:
                return trials
        best = min([best, *of_kind], key=_total)
    return trials


def _total(trial: Trial) -> float:
    return math.inf if trial.answer is None else trial.answer.memory.total


def _files(job: Job) -> list[Variant]:
    """Returns the package's mesh files for the chip that can hold the state."""
    limit = job.topology.chip.hbm_limit_per_device
    found = mesh_file_variants(load_job(job), job.topology)
    return [each for each in found if each.name not in job.files and _least(job, each) <= limit]


def _meshes(job: Job) -> list[Variant]:
    """Returns the meshes with the least state a device."""
    limit = job.topology.chip.hbm_limit_per_device
    most = min(limit, _LESS * _least(job, Variant(AS_CONFIGURED, ())))
    # Of as much state, those with the most devices for the experts first.
    found = [
        (round(least / limit, 2), variant)
        for variant in reversed(mesh_variants(load_job(job), job.topology))
        if (least := _least(job, variant)) <= most
    ]
    found.sort(key=lambda item: item[0])
    # Of meshes that differ in their rules only: the one with the least.
    meshes: dict[tuple[str, ...], Variant] = {}
    for _, variant in found:
        shape = tuple(each for each in variant.bindings if not each.startswith("Mesh.rules"))
        meshes.setdefault(shape, variant)
    return list(meshes.values())[:MESHES]


def _least(job: Job, variant: Variant) -> float:
    """Returns the bytes a device of the state and a batch; infinite for what is refused."""
    trial = Trial(variant.name, variant.bindings, None, files=variant.files)
    try:
        return sum(least_bytes(changed(job, trial)).values())
    except UserError:
        return math.inf
