"""Lowering of the training step for the devices of a topology."""

import dataclasses
from typing import Any

import jax
import numpy as np

from moe_jax.cost_model.communication_bounds import CommunicationBound, communication_bounds
from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.experiments import Experiment
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
        argument_bytes: bytes of parameters, router state, optimiser state and batch on one device,
            without the padding of XLA's tiles.
        bounds: lower bounds of its communication.
    """

    lowered: Any
    mesh: dict[str, int]
    coordinates: list[tuple[int, ...]]
    argument_bytes: dict[str, int]
    bounds: list[CommunicationBound]


def lower_step(experiment: Experiment, devices: list[jax.Device]) -> LoweredStep:
    """Lowers the step that `moe-jax train` would compile on these devices; allocates nothing.

    Raises:
        UserError: if mesh or batch do not match the devices.
    """
    partition = experiment.partition_of(devices)
    model = experiment.language_model(partition)
    state = abstract_state(model, experiment.optimizer)
    batch = abstract_batch(experiment.data, partition)
    lowered = experiment.train_step(model).lower(state, batch)
    return LoweredStep(
        lowered,
        dict(partition.mesh.shape),
        [tuple(device.coords) for device in partition.mesh.devices.flat],
        {**state_bytes(state), "batch": device_bytes(batch)},
        communication_bounds(experiment, model),
    )


def abstract_batch(data: DataConfig, partition: Partition) -> Batch:
    """Returns the abstract arrays of a batch of text, sharded over a mesh."""
    shape = (data.batch_size, data.sequence_length)
    tokens: Any = jax.ShapeDtypeStruct(shape, np.int32, sharding=partition.rows)
    weights: Any = jax.ShapeDtypeStruct(shape, np.float32, sharding=partition.rows)
    packing = tokens if data.pack else None
    prefix = tokens if data.objective != "lm" else None
    return Batch(
        tokens, tokens, weights, positions_BS=packing, segments_BS=packing, prefix_BS=prefix
    )


def argument_bytes(experiment: Experiment, num_devices: int) -> dict[str, int]:
    """Returns the bytes of the step's arguments on one device, without compiling.

    Args:
        experiment: the configuration.
        num_devices: of the mesh; they need not exist.

    Raises:
        UserError: if mesh or batch do not match the number of devices.
    """
    partition = experiment.abstract_partition(num_devices)
    state = abstract_state(experiment.language_model(partition), experiment.optimizer)
    batch = abstract_batch(experiment.data, partition)
    return {**state_bytes(state), "batch": device_bytes(batch)}
