"""Sharding over a mesh: parameters by the logical names of their axes, batches by rows.

A parameter has two shardings. It is *stored* sharded along every mesh axis that its logical axes
map to. In *computations* it is sharded only along `tensor` and, on its axis of experts, along
`expert`: the other shards are gathered before use, and the gradient is scattered afterwards.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from moe_jax.errors import UserError
from moe_jax.sharding.global_arrays import make_global_arrays
from moe_jax.sharding.mesh import MeshConfig, make_mesh
from moe_jax.sharding.rules import AXES, AXIS_SETTINGS, BATCH_AXES, Rules

# Logical names of the axes of an array; None for an axis that is not sharded.
LogicalAxes = tuple[str | None, ...]


@dataclasses.dataclass(frozen=True)
class Partition:
    """A mesh and the rules for sharding arrays over it; hashable.

    Attributes:
        mesh: the device mesh.
        rules: mesh axes of each logical axis.
        expert_parallelism: `explicit` or `implicit` (see `MeshConfig`).
        buffer_factor: see `MeshConfig`.
    """

    mesh: Mesh
    rules: Rules
    expert_parallelism: str = "explicit"
    buffer_factor: float = 1.5

    @property
    def is_sharded(self) -> bool:
        """True if arrays are sharded over a mesh; False for a single device."""
        return True

    @property
    def platform(self) -> str:
        """The platform that programs are compiled for; its devices need not be available."""
        return str(self.mesh.devices.flat[0].platform)

    @property
    def batch_shards(self) -> int:
        """Number of shards that the rows of a batch are split into."""
        return math.prod(self.mesh.shape[axis] for axis in BATCH_AXES)

    @property
    def local_devices(self) -> list[jax.Device]:
        """The mesh's devices in this process."""
        return list(self.mesh.local_devices)

    def size(self, axis: str) -> int:
        """Returns the number of devices along a mesh axis."""
        return int(self.mesh.shape[axis])

    def stored(self, axes: LogicalAxes) -> PartitionSpec:
        """Returns the spec that a parameter is stored with."""
        rules = dict(self.rules)
        return PartitionSpec(*(_entry(rules[a] if a else ()) for a in axes))

    def computed(self, axes: LogicalAxes) -> PartitionSpec:
        """Returns the spec that a parameter has in computations."""
        rules = dict(self.rules)
        return PartitionSpec(*(_entry(_kept(name, rules[name] if name else ())) for name in axes))

    def passed(self, axes: LogicalAxes) -> PartitionSpec:
        """Returns the spec with which a parameter is passed to `jax.shard_map`, for `gather`.

        It is the spec of storage, except for axes where a device's shard for computation does not
        consist of adjacent stored shards; these have the spec of computation.
        """
        entries = []
        for name in axes:
            targets = dict(self.rules)[name] if name else ()
            kept = _kept(name, targets)
            entries.append(_entry(targets if targets[: len(kept)] == kept else kept))
        return PartitionSpec(*entries)

    def gather(self, part: jax.Array, axes: LogicalAxes) -> jax.Array:
        """Gathers a shard to the sharding for computation, inside `jax.shard_map`.

        The gradient is a reduce-scatter over the same devices. The compiler's choice may be an
        all-reduce instead, which transfers twice the bytes.
        """
        for dimension, entry in enumerate(self.passed(axes)):
            targets = (entry,) if isinstance(entry, str) else entry or ()
            kept = _kept(axes[dimension], targets)
            over = tuple(a for a in targets if a not in kept and self.size(a) > 1)
            if over:
                part = jax.lax.all_gather(part, over, axis=dimension, tiled=True)
        return part

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Returns a sharding over this mesh."""
        return NamedSharding(self.mesh, spec)

    def shard_map(
        self, function: Callable[..., Any], in_specs: Any, out_specs: Any
    ) -> Callable[..., Any]:
        """Applies `jax.shard_map` over the mesh to a function, without replication checks."""
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
        )

    def sum_over_batch(self, values: Any) -> Any:
        """Sums arrays over the devices that a batch is sharded over, inside `shard_map`."""
        return jax.lax.psum(values, BATCH_AXES)

    def sum_over_devices(self, values: Any) -> Any:
        """Sums arrays over all devices, inside `shard_map`."""
        return jax.lax.psum(values, self.mesh.axis_names)

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of arrays that are replicated on every device."""
        return self.sharding(PartitionSpec())

    @property
    def rows(self) -> NamedSharding:
        """The sharding of the rows of a batch, over all mesh axes except `tensor`."""
        return self.sharding(PartitionSpec(BATCH_AXES))

    def check(self, name: str, axes: LogicalAxes, shape: tuple[int, ...]) -> None:
        """Checks that the rules can shard a parameter.

        Raises:
            UserError: if two axes of the parameter are sharded along the same mesh axis, or the
                size of an axis is not a multiple of the number of its shards.
        """
        seen: dict[str, str] = {}
        for logical, size in zip(axes, shape, strict=True):
            targets = dict(self.rules)[logical] if logical else ()
            parts = math.prod(self.size(axis) for axis in targets)
            for axis in targets:
                if axis in seen and self.size(axis) > 1:
                    raise UserError(
                        f"{name}: its axes {seen[axis]!r} and {logical!r} are both sharded along "
                        f"the mesh axis {axis!r}; change Mesh.rules for one of them"
                    )
                seen[axis] = str(logical)
            if size % parts:
                raise UserError(self._indivisible(name, str(logical), size, targets))

    def _indivisible(self, name: str, logical: str, size: int, targets: tuple[str, ...]) -> str:
        """Returns the error for an axis that cannot be sharded evenly, with the settings' names."""
        split = [axis for axis in targets if self.size(axis) > 1]
        sizes = [self.size(axis) for axis in split]
        meshes = " x ".join(f"Mesh.{axis}" for axis in split)
        product = " x ".join(map(str, sizes)) + (f" = {math.prod(sizes)}" if len(split) > 1 else "")
        setting = AXIS_SETTINGS.get(logical)
        if logical == "mlp" and "shared" in name:
            setting = "Model.num_shared_experts x Model.d_ff"
        axis_name = f"the axis {logical!r} of {name}"
        dividend = (
            f"{setting} = {size} ({axis_name})" if setting else f"{axis_name}, of size {size}"
        )
        return (
            f"{meshes} = {product} does not divide {dividend}: change one of them, or shard this "
            "axis along another mesh axis with Mesh.rules"
        )

    def constrain(self, x: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Constrains the sharding of an array inside a compiled function."""
        return jax.lax.with_sharding_constraint(x, self.sharding(spec))

    def constrain_rows(self, x: jax.Array) -> jax.Array:
        """Constrains an array to be sharded by rows: along its first axis, and no other."""
        return self.constrain(x, PartitionSpec(BATCH_AXES))

    def place_rows(self, tree: Any) -> Any:
        """Makes sharded global arrays from host arrays; every process has all rows of the batch."""
        return jax.tree.map(
            lambda array: make_global_arrays(np.asarray(array), self.rows, len(array), first=0),
            tree,
        )


@dataclasses.dataclass(frozen=True)
class SingleDevice(Partition):
    """The partition of a single device: nothing is sharded, and arrays are returned unchanged.

    Shardings are None, for which JAX uses its default.
    """

    mesh: Any = None
    rules: Rules = ()

    @property
    def is_sharded(self) -> bool:
        """Always false."""
        return False

    @property
    def platform(self) -> str:
        """JAX's default platform."""
        return str(jax.default_backend())

    @property
    def batch_shards(self) -> int:
        """Always 1."""
        return 1

    @property
    def local_devices(self) -> list[jax.Device]:
        """The first device."""
        return list(jax.local_devices()[:1])

    def size(self, axis: str) -> int:
        """Returns 1."""
        return 1

    def stored(self, axes: LogicalAxes) -> PartitionSpec:
        """Returns a spec without mesh axes."""
        return PartitionSpec(*(None for _ in axes))

    computed = passed = stored

    def gather(self, part: jax.Array, axes: LogicalAxes) -> jax.Array:
        """Returns the array."""
        return part

    def sharding(self, spec: PartitionSpec) -> Any:
        """Returns None."""
        return None

    def shard_map(
        self, function: Callable[..., Any], in_specs: Any, out_specs: Any
    ) -> Callable[..., Any]:
        """Returns the function."""
        return function

    def sum_over_batch(self, values: Any) -> Any:
        """Returns the values."""
        return values

    def sum_over_devices(self, values: Any) -> Any:
        """Returns the values."""
        return values

    def check(self, name: str, axes: LogicalAxes, shape: tuple[int, ...]) -> None:
        """Accepts every parameter."""

    def constrain(self, x: jax.Array, spec: PartitionSpec) -> jax.Array:
        """Returns the array."""
        return x

    def place_rows(self, tree: Any) -> Any:
        """Returns the host arrays."""
        return tree


SINGLE_DEVICE = SingleDevice()


def make_partition(config: MeshConfig, devices: list[jax.Device] | None = None) -> Partition:
    """Makes a partition with the mesh of a configuration, over all devices or the given ones.

    Raises:
        UserError: if the mesh does not fit the devices.
    """
    return _partition(config, make_mesh(config, devices))


def make_abstract_partition(config: MeshConfig, devices: int) -> Partition:
    """Makes a partition with the mesh of a configuration over a number of abstract devices.

    It provides the shardings of arrays, but cannot hold arrays.

    Raises:
        UserError: if the mesh does not fit the number of devices.
    """
    mesh: Any = AbstractMesh(tuple(config.sizes(devices).values()), AXES)
    return _partition(config, mesh)


def _partition(config: MeshConfig, mesh: Mesh) -> Partition:
    return Partition(mesh, config.resolved_rules(), config.expert_parallelism, config.buffer_factor)


def _entry(axes: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return axes[0] if len(axes) == 1 else axes or None


def _kept(name: str | None, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the mesh axes along which a logical axis remains sharded in computations."""
    kept = ("tensor", "expert") if name == "experts" else ("tensor",)
    return tuple(axis for axis in targets if axis in kept)
