"""What a training step has to move between chips: the least that its sharding allows, by hand.

| what                                 | kind           | how often a step               |
|--------------------------------------|----------------|--------------------------------|
| a weight that is stored in parts     | all-gather     | forward and backward           |
| the embedding and the last norm      | all-gather     | once                           |
| a gradient of what is gathered       | reduce-scatter | once                           |
| a gradient over copies of the weight | all-reduce     | once                           |
| tokens to their experts and back     | all-to-all     | twice forward, twice backward  |
| activations over `tensor`            | all-reduce     | twice a layer, and backward    |

Bytes are a chip's, by the definition of `collectives`: what an all-gather makes, what the others
are given. Weights and their gradients travel in the precision they are computed with, and tokens
with the slots that stay empty. What a forward pass that is computed again moves again is above the
bound.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from moe_jax.dispatch.expert_parallel import buffer_rows
from moe_jax.experiment import Experiment
from moe_jax.models.decoder import in_compute_precision
from moe_jax.models.functional import STACKED_PREFIX, LanguageModel
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.sharding.mesh import BATCH_AXES
from moe_jax.sharding.partition import LogicalAxes, Partition


@dataclasses.dataclass(frozen=True)
class Bound:
    """Bytes a chip and step that a kind of collective has to move over mesh axes.

    Attributes:
        kind: `all-gather`, `reduce-scatter`, `all-reduce` or `all-to-all`.
        axes: mesh axes, in the order of the mesh.
        bytes: a chip and step.
        what: what they carry.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: float
    what: str


def lower_bounds(described: Experiment, model: LanguageModel) -> list[Bound]:
    """Returns the bounds of a step, one for each kind, group of axes and cargo."""
    partition = model.partition
    assert partition is not None
    found: dict[tuple[str, tuple[str, ...], str], float] = {}

    def add(kind: str, axes: set[str], size: float, what: str) -> None:
        crossed = tuple(a for a in partition.mesh.axis_names if a in axes)
        if crossed and size:
            found[kind, crossed, what] = found.get((kind, crossed, what), 0.0) + size

    itemsize = np.dtype(described.model.compute_dtype).itemsize
    for name, axes in model.logical_axes().items():
        shape = model.abstract().params[name].shape
        stored, computed = _cut(partition, axes, stored=True), _cut(partition, axes, stored=False)
        parts = math.prod(partition.size(axis) for axis in computed)
        element = itemsize if in_compute_precision(axes) else 4
        size = math.prod(shape) * element / parts
        what = "experts" if "experts" in axes else "other weights"
        gathered = stored - computed
        add("all-gather", gathered, size * (2 if name.startswith(STACKED_PREFIX) else 1), what)
        add("reduce-scatter", gathered, size, f"gradients of {what}")
        copies = {a for a in BATCH_AXES if partition.size(a) > 1} - stored
        left = math.prod(partition.size(axis) for axis in gathered)
        add("all-reduce", copies, size / left, f"gradients of {what}")
    tokens = described.data.batch_size * described.data.sequence_length / partition.batch_shards
    row = tokens * described.model.d_model * itemsize
    if partition.size("expert") > 1:
        rows = row * _slots_per_token(described) * described.model.num_moe_layers
        add("all-to-all", {"expert"}, 4 * rows, "tokens to experts and back")
    if partition.size("tensor") > 1:
        add("all-reduce", {"tensor"}, 4 * row * described.model.num_layers, "activations")
    return [Bound(kind, axes, size, what) for (kind, axes, what), size in found.items()]


def filled_share(described: Experiment, mesh: Mapping[str, int]) -> float:
    """Returns how much of the experts' buffers a balanced router fills, without a capacity.

    Args:
        described: the run.
        mesh: size of every mesh axis.
    """
    devices = mesh["expert"]
    if devices == 1:
        return 1.0
    rows = described.data.batch_size // math.prod(mesh[axis] for axis in BATCH_AXES)
    tokens = rows * described.data.sequence_length / described.train.accumulation
    expected = tokens * described.experts_per_token / devices
    return min(expected / buffer_rows(expected, described.mesh.buffer_factor), 1.0)


def _slots_per_token(described: Experiment) -> float:
    """Returns how many experts' slots there are for each token; those that stay empty travel too.

    Without a capacity only what is chosen has to travel.
    """
    router = described.active_router
    if isinstance(router, TokenChoice) and router.capacity_factor is not None:
        return min(router.capacity_factor * router.k, described.model.num_experts)
    return described.experts_per_token


def _cut(partition: Partition, axes: LogicalAxes, stored: bool) -> set[str]:
    """Returns the mesh axes of more than one device that a parameter is cut along."""
    spec = partition.stored(axes) if stored else partition.computed(axes)
    entries = (entry if isinstance(entry, tuple) else (entry,) for entry in spec)
    return {axis for entry in entries for axis in entry if axis and partition.size(axis) > 1}
