"""`moe-jax config show --sharding`: how parameters are sharded over the mesh."""

import dataclasses
import math
from typing import Any

from moe_jax import experiments
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.experiments import Experiment
from moe_jax.runs.device_mesh import mesh_summary
from moe_jax.sharding.partition import Partition, make_partition


@dataclasses.dataclass(frozen=True)
class ShardedParameter:
    """A parameter and the mesh axes that shard it.

    Attributes:
        name: path in the parameter tree.
        shape: size of every axis.
        axes: logical name of every axis.
        stored: mesh axes that shard each axis.
        bytes_per_device: bytes of one shard.
        bytes: bytes of the whole parameter.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    stored: tuple[tuple[str, ...], ...]
    bytes_per_device: int
    bytes: int

    def __str__(self) -> str:
        axes = ", ".join(
            f"{axis} {length}" + (f" / {' x '.join(group)}" if group else "")
            for axis, length, group in zip(self.axes, self.shape, self.stored, strict=True)
        )
        return f"{self.bytes_per_device:>16,}  {self.name}  {axes}"


def shard_parameters(experiment: Experiment, partition: Partition) -> list[ShardedParameter]:
    """Returns the parameters of an experiment as a mesh shards them, allocating nothing.

    Raises:
        UserError: if a parameter does not fit the mesh.
    """
    model = experiment.language_model()
    shapes = model.abstract().params
    sharded = []
    for name, axes in model.logical_axes().items():
        leaf = shapes[name]
        partition.check(name, axes, leaf.shape)
        stored = []
        for entry in partition.stored(axes):
            entries = entry if isinstance(entry, tuple) else (entry,)
            stored.append(tuple(a for a in entries if a is not None and partition.size(a) > 1))
        shards = math.prod(partition.size(axis) for group in stored for axis in group)
        size = leaf.size * leaf.dtype.itemsize
        sharded.append(
            ShardedParameter(
                name, tuple(leaf.shape), tuple(axes), tuple(stored), size // shards, size
            )
        )
    return sharded


def show_sharding(source: ConfigSource) -> dict[str, Any]:
    """Prints how every parameter is sharded over the mesh.

    Raises:
        UserError: if the mesh does not fit the devices, or a parameter does not fit the mesh.
    """
    loaded = experiments.load(source)
    partition = make_partition(loaded.mesh)
    parameters = shard_parameters(loaded, partition)
    per_device = sum(parameter.bytes_per_device for parameter in parameters)
    whole = sum(parameter.bytes for parameter in parameters)
    say = line_printer(make_console())
    say("bytes a device, parameter, its axes: name size / mesh axis that shards it")
    for parameter in parameters:
        say(str(parameter))
    say(
        f"Mesh: {mesh_summary(partition)}\n"
        f"{per_device:,} bytes of parameters a device, {whole:,} in all"
    )
    keys = ("name", "shape", "axes", "stored", "bytes_per_device")
    return {
        "mesh": dict(partition.mesh.shape),
        "parameters": [{key: getattr(p, key) for key in keys} for p in parameters],
        "bytes_per_device": per_device,
        "bytes": whole,
    }
