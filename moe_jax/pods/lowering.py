"""The trainer's own step, traced for devices that are not there."""

import dataclasses
from typing import Any

import jax
import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.experiment import Experiment
from moe_jax.pods.bounds import Bound, lower_bounds
from moe_jax.sharding.partition import Partition
from moe_jax.training.memory.memory_estimate import device_bytes, state_bytes
from moe_jax.training.state import abstract_state


@dataclasses.dataclass(frozen=True)
class LoweredStep:
    """A training step before it is compiled.

    Attributes:
        lowered: JAX's `Lowered`; `compile()` compiles it for the devices of the mesh.
        mesh: size of every mesh axis, in the order of the axes.
        coordinates: of the devices in the torus, in the order of the mesh.
        argument_bytes: bytes a device that hold parameters, router state, optimiser state and the
            batch. XLA's tiles pad small arrays, so that it needs a little more.
        bounds: what it has to move between chips.
    """

    lowered: Any
    mesh: dict[str, int]
    coordinates: list[tuple[int, ...]]
    argument_bytes: dict[str, int]
    bounds: list[Bound]


def lower_step(described: Experiment, devices: list[jax.Device]) -> LoweredStep:
    """Traces the step that `moe-jax train` would compile on these devices; allocates nothing.

    Raises:
        UserError: if the mesh or the batch do not fit the devices.
    """
    partition = described.partition_of(devices)
    model = described.language_model(partition)
    state = abstract_state(model, described.optimizer)
    batch = abstract_batch(described.data, partition)
    lowered = described.train_step(model).lower(state, batch)
    return LoweredStep(
        lowered,
        dict(partition.mesh.shape),
        [tuple(device.coords) for device in partition.mesh.devices.flat],
        {**state_bytes(state), "batch": device_bytes(batch)},
        lower_bounds(described, model),
    )


def abstract_batch(data: DataConfig, partition: Partition) -> Batch:
    """Returns the shapes of a batch of plain text, cut over a mesh."""
    shape = (data.batch_size, data.sequence_length)
    tokens: Any = jax.ShapeDtypeStruct(shape, np.int32, sharding=partition.rows)
    weights: Any = jax.ShapeDtypeStruct(shape, np.float32, sharding=partition.rows)
    known = tokens if data.pack else None
    prefix = tokens if data.objective != "lm" else None
    return Batch(tokens, tokens, weights, positions_BS=known, segments_BS=known, prefix_BS=prefix)


def argument_bytes(described: Experiment, devices: int) -> dict[str, int]:
    """Returns bytes a device of what a step is given, over so many devices; compiles nothing.

    Args:
        described: what is trained.
        devices: over how many; they need not be there.

    Raises:
        UserError: if the mesh or the batch do not fit them.
    """
    partition = described.abstract_partition(devices)
    state = abstract_state(described.language_model(partition), described.optimizer)
    batch = abstract_batch(described.data, partition)
    return {**state_bytes(state), "batch": device_bytes(batch)}
