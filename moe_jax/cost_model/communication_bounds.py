"""Lower bounds of the communication of a training step, derived from its sharding.

| data                                 | kind           | executions in a step           |
|--------------------------------------|----------------|--------------------------------|
| a sharded weight                     | all-gather     | forward and backward           |
| the embedding and the last norm      | all-gather     | once                           |
| the gradient of a gathered weight    | reduce-scatter | once                           |
| the gradient of a replicated weight  | all-reduce     | once                           |
| tokens to experts and back           | all-to-all     | twice forward, twice backward  |
| activations over `tensor`            | all-reduce     | twice a layer, and backward    |

Bytes are those of one device, as `moe_jax.hlo.collectives` defines them: results of an all-gather,
operands of the others. Weights and their gradients are sent in their compute precision, and tokens
with the experts' empty slots. The bounds leave out the communication of a recomputed forward pass.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from moe_jax.dispatch.expert_parallel import buffer_rows
from moe_jax.experiments import Experiment
from moe_jax.models.decoder import in_compute_precision
from moe_jax.models.functional import STACKED_PREFIX, LanguageModel
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.sharding.partition import LogicalAxes, Partition
from moe_jax.sharding.rules import BATCH_AXES


@dataclasses.dataclass(frozen=True)
class CommunicationBound:
    """Least bytes of one kind of collective over mesh axes, per device and step.

    Attributes:
        kind: `all-gather`, `reduce-scatter`, `all-reduce` or `all-to-all`.
        axes: mesh axes, in the order of the mesh.
        bytes: per device and step.
        what: the data that is sent.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: float
    what: str


def communication_bounds(experiment: Experiment, model: LanguageModel) -> list[CommunicationBound]:
    """Returns the bounds of a step, one for each kind, set of mesh axes and data."""
    partition = model.partition
    assert partition.is_sharded
    found: dict[tuple[str, tuple[str, ...], str], float] = {}

    def add(kind: str, axes: set[str], size: float, what: str) -> None:
        crossed = tuple(a for a in partition.mesh.axis_names if a in axes)
        if crossed and size:
            found[kind, crossed, what] = found.get((kind, crossed, what), 0.0) + size

    itemsize = np.dtype(experiment.model.compute_dtype).itemsize
    for name, axes in model.logical_axes().items():
        shape = model.abstract().params[name].shape
        stored = _sharded_axes(partition, axes, stored=True)
        computed = _sharded_axes(partition, axes, stored=False)
        shards = math.prod(partition.size(axis) for axis in computed)
        element = itemsize if in_compute_precision(axes) else 4
        size = math.prod(shape) * element / shards
        what = "experts" if "experts" in axes else "other weights"
        gathered = stored - computed
        add("all-gather", gathered, size * (2 if name.startswith(STACKED_PREFIX) else 1), what)
        add("reduce-scatter", gathered, size, f"gradients of {what}")
        replicated = {a for a in BATCH_AXES if partition.size(a) > 1} - stored
        scattered = math.prod(partition.size(axis) for axis in gathered)
        add("all-reduce", replicated, size / scattered, f"gradients of {what}")
    tokens = experiment.data.batch_size * experiment.data.sequence_length / partition.batch_shards
    activations = tokens * experiment.model.d_model * itemsize
    if partition.size("expert") > 1:
        slots = activations * _slots_per_token(experiment) * experiment.model.num_moe_layers
        add("all-to-all", {"expert"}, 4 * slots, "tokens to experts and back")
    if partition.size("tensor") > 1:
        add("all-reduce", {"tensor"}, 4 * activations * experiment.model.num_layers, "activations")
    return [
        CommunicationBound(kind, axes, size, what) for (kind, axes, what), size in found.items()
    ]


def expert_buffer_occupancy(experiment: Experiment, mesh: Mapping[str, int]) -> float:
    """Returns the share of the dropless experts' buffers that a balanced router fills.

    Args:
        experiment: the configuration.
        mesh: size of every mesh axis.
    """
    devices = mesh["expert"]
    if devices == 1:
        return 1.0
    rows = experiment.data.batch_size // math.prod(mesh[axis] for axis in BATCH_AXES)
    tokens = rows * experiment.data.sequence_length / experiment.train.accumulation
    expected = tokens * experiment.experts_per_token / devices
    return min(expected / buffer_rows(expected, experiment.mesh.buffer_factor), 1.0)


def _slots_per_token(experiment: Experiment) -> float:
    """Returns the experts' slots for each token, empty ones included, since they are sent too.

    Without a capacity only the tokens that experts process are sent.
    """
    router = experiment.active_router
    if isinstance(router, TokenChoice) and router.capacity_factor is not None:
        return min(router.capacity_factor * router.k, experiment.model.num_experts)
    return experiment.experts_per_token


def _sharded_axes(partition: Partition, axes: LogicalAxes, stored: bool) -> set[str]:
    """Returns the mesh axes of more than one device that a parameter is sharded over."""
    spec = partition.stored(axes) if stored else partition.computed(axes)
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec)
    return {axis for entry in entries for axis in entry if axis and partition.size(axis) > 1}
