"""The device mesh, whose axes are the kinds of parallelism.

| axis     | shards                            | communication over it                   |
|----------|-----------------------------------|-----------------------------------------|
| `slice`  | the batch, between slices (DCN)   | gradients                               |
| `data`   | the batch                         | gradients                               |
| `fsdp`   | the batch, `embed` of every weight| weights before use, gradients           |
| `expert` | the batch, and the experts        | tokens to their experts and back        |
| `tensor` | heads, hidden units, vocabulary   | activations                             |

The batch is sharded along every axis except `tensor`. An axis of size 1 has no cost.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import jax
import numpy as np
from jax.experimental import mesh_utils

from moe_jax.errors import UserError
from moe_jax.registration import configurable
from moe_jax.settings import Name, Positive, PositiveInt, Settings, rule
from moe_jax.sharding.rules import AXES, Rules, resolve_rules

ExpertParallelism = Literal["explicit", "implicit"]
# Number of devices along an axis.
Size = Annotated[PositiveInt | Literal[-1], "for the rest"]


@configurable
@dataclasses.dataclass(frozen=True)
class MeshConfig(Settings, called="Mesh"):
    """Sizes of the mesh axes, and the parameter axes that are sharded along them.

    Attributes:
        slice: number of slices of a multi-slice TPU.
        data: data parallelism without sharded weights; -1 for all remaining devices.
        fsdp: data parallelism with weights sharded over this many devices.
        expert: expert parallelism: number of devices that the experts are sharded over.
        tensor: tensor parallelism: number of devices that share each matrix product.
        rules: changes to `DEFAULT_RULES`, from a logical axis to a mesh axis, several, or None.
        expert_parallelism: how tokens are sent to the experts of other devices: by `explicit`
            all-to-alls, or `implicit` in sharding constraints for the compiler.
        buffer_factor: number of rows that a device can send to another per round, relative to a
            uniform distribution; for routers without a capacity, whose surplus takes more rounds.
    """

    slice: Size = 1
    data: Size = -1
    fsdp: Size = 1
    expert: Size = 1
    tensor: Size = 1
    rules: Mapping[Name, Name | Sequence[Name] | None] = dataclasses.field(default_factory=dict)
    expert_parallelism: ExpertParallelism = "explicit"
    buffer_factor: Positive = 1.5

    @staticmethod
    @rule
    def _one_axis_takes_the_rest(
        slice: int, data: int, fsdp: int, expert: int, tensor: int
    ) -> None:
        if (slice, data, fsdp, expert, tensor).count(-1) > 1:
            raise UserError("only one axis of Mesh can be -1 (the devices that are left)")

    @staticmethod
    @rule
    def _rules_name_axes(rules: Mapping[str, str | Sequence[str] | None]) -> None:
        resolve_rules(rules)

    def resolved_rules(self) -> Rules:
        """Returns the mesh axes of every logical axis, including the changes."""
        return resolve_rules(self.rules)

    def sizes(self, devices: int) -> dict[str, int]:
        """Returns the size of every axis for a number of devices.

        Raises:
            UserError: if the product of the sizes is not the number of devices.
        """
        sizes = {name: getattr(self, name) for name in AXES}
        fixed = int(np.prod([size for size in sizes.values() if size > 0]))
        for name, size in sizes.items():
            if size == -1 and devices % fixed == 0:
                sizes[name] = devices // fixed
        if int(np.prod(list(sizes.values()))) != devices:
            given = " x ".join(f"{name} {size}" for name, size in sizes.items() if size != 1)
            raise UserError(
                f"Mesh: {given or 'all axes 1'} does not make {devices} devices; the sizes have to "
                "multiply up to the number of devices (-1 takes the rest)"
            )
        return sizes


def available_devices() -> list[jax.Device]:
    """Returns the devices of all processes."""
    return list(jax.devices())


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Arranges devices, all by default, so that neighbours on the mesh are close on the network.

    Raises:
        UserError: if the sizes do not fit the devices.
    """
    devices = available_devices() if devices is None else list(devices)
    sizes = config.sizes(len(devices))
    shape = tuple(sizes.values())
    if sizes["slice"] > 1 and devices[0].platform == "tpu":
        try:
            grid = mesh_utils.create_hybrid_device_mesh(
                (1, *shape[1:]),
                (sizes["slice"], 1, 1, 1, 1),
                devices,
                allow_split_physical_axes=True,
            )
        except (ValueError, AssertionError) as error:
            raise UserError(f"Mesh.slice = {sizes['slice']}: {error}") from error
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return jax.sharding.Mesh(grid, AXES)
