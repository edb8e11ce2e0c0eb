"""Estimate the device memory of training before it is allocated."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from moe_jax.errors import UserError
from moe_jax.models.functional import Arrays
from moe_jax.training.memory.host_memory import available_bytes
from moe_jax.training.state import TrainState

GIB = float(1 << 30)
_SETTING = "Train.check_memory = False trains all the same"


@dataclasses.dataclass(frozen=True)
class MemoryLimit:
    """The memory that can be allocated.

    Attributes:
        bytes: bytes per device.
        devices: number of devices that share one memory, with `bytes` for each.
        is_exact: True if exceeding the limit certainly fails. A host overcommits its memory:
            programs can allocate more than there is, as long as they do not use it.
        what: name of the machine or device, for messages.
    """

    bytes: float
    devices: int
    is_exact: bool
    what: str

    def __str__(self) -> str:
        if self.is_exact:
            return f"{self.what} has {self.bytes / GIB:.2f} GiB"
        return f"{self.what} has {self.bytes * self.devices / GIB:.2f} GiB left" + (
            f" for {self.devices} devices" if self.devices > 1 else ""
        )


def device_bytes(tree: Any) -> int:
    """Returns the bytes of arrays per device, from their shapes, types and shardings."""
    return sum(map(_leaf_bytes, jax.tree.leaves(tree)))


def state_bytes(state: TrainState) -> dict[str, int]:
    """Returns the bytes per device of a state, or an abstract state, by kind of array."""
    parts = {
        "parameters": state.variables.params,
        "router state": state.variables.router_state,
        "optimiser": state.optimizer_state,
    }
    return {name: device_bytes(tree) for name, tree in parts.items()}


def find_limit(devices: Sequence[jax.Device]) -> MemoryLimit | None:
    """Returns the memory limit of the devices; None if unknown.

    Args:
        devices: the devices of this process.
    """
    if devices[0].platform == "cpu":
        available = available_bytes()
        if available is None:
            return None
        return MemoryLimit(available / len(devices), len(devices), False, "this machine")
    limits = []
    for device in devices:
        try:
            limits.append((device.memory_stats() or {}).get("bytes_limit"))
        except (RuntimeError, NotImplementedError):  # XlaRuntimeError: not on this platform.
            limits.append(None)
    known = [limit for limit in limits if limit]
    if not known:
        return None
    return MemoryLimit(min(known), 1, True, f"a {devices[0].device_kind}")


def check_state(state: TrainState, limit: MemoryLimit, trained: Arrays | None = None) -> None:
    """Checks that parameters, optimiser state and gradients fit into memory.

    All gradients are in memory at once, since an update is checked before it is applied.

    Args:
        state: shapes and, over a mesh, shardings.
        limit: memory limit of the devices.
        trained: the parameters that have gradients; None for all.

    Raises:
        UserError: with the sizes, if they do not fit.
    """
    parts = state_bytes(state)
    parts["gradients"] = parts["parameters"] if trained is None else device_bytes(trained)
    total = sum(parts.values())
    if total <= limit.bytes:
        return
    each = "" if limit.devices == 1 else f" for each of {limit.devices} devices"
    raise UserError(
        f"training needs {_listed(parts)} = {total / GIB:.2f} GiB{each}, and {limit}: use more "
        "devices and shard the weights over them (Mesh.fsdp, Mesh.expert), a smaller model, or an "
        f"optimiser that keeps less (Adafactor). {_SETTING}"
    )


def step_bytes(program: Any) -> int | None:
    """Returns the bytes per device that a compiled step needs, including the state.

    Args:
        program: a compiled program, such as `jax.jit(step).lower(...).compile()`.

    Returns:
        the bytes, or None if the compiler does not provide them.
    """
    stats = program.memory_analysis()
    if stats is None:
        return None
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return int(stats.argument_size_in_bytes + max(results, 0) + stats.temp_size_in_bytes)


def check_step(
    total: int, state: TrainState, limit: MemoryLimit, warn: Callable[[str], object] | None = None
) -> None:
    """Checks that a compiled step fits into memory; warns if exceeding the limit may succeed.

    Args:
        total: bytes per device, from `step_bytes`.
        state: arrays, or shapes and shardings.
        limit: memory limit of the devices, before the state was allocated.
        warn: called with a message if memory may run out.

    Raises:
        UserError: with the sizes, if the limit is exact and exceeded.
    """
    if total <= limit.bytes:
        return
    parts = {name: size for name, size in state_bytes(state).items() if size}
    parts["activations, gradients and the rest"] = max(total - sum(parts.values()), 0)
    each = "" if limit.devices == 1 else f" for each of {limit.devices} devices"
    text = (
        f"a step takes {_listed(parts)} = {total / GIB:.2f} GiB{each}, and {limit}: use "
        "Model.remat = 'full', smaller micro-batches (Train.accumulation), fewer rows "
        "(Data.batch_size), or more devices"
    )
    if limit.is_exact:
        raise UserError(f"{text}. {_SETTING}")
    if warn is not None:
        warn(f"Memory may run out: {text}")


class MemoryCheckedStep:
    """A training step whose memory is checked before its first run.

    Args:
        step: the jitted step, (state, batch) -> (state, metrics).
        limit: memory limit of the devices, before the state was allocated.
        warn: called with a message if memory may run out.
    """

    def __init__(self, step: Any, limit: MemoryLimit, warn: Callable[[str], object]):
        self._step, self._limit, self._warn = step, limit, warn
        self._is_checked = False

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """Runs the step."""
        if not self._is_checked:
            self._is_checked = True
            # JAX caches the program: the call below does not compile it again.
            total = step_bytes(self._step.lower(state, batch).compile())
            if total is not None:
                check_step(total, state, self._limit, self._warn)
        result: tuple[TrainState, dict[str, jax.Array]] = self._step(state, batch)
        return result


def _leaf_bytes(leaf: jax.ShapeDtypeStruct | jax.Array) -> int:
    shape = leaf.shape if leaf.sharding is None else leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def _listed(parts: Mapping[str, float]) -> str:
    shown = {name: size for name, size in parts.items() if size >= 0.005 * GIB}
    return " + ".join(f"{size / GIB:.2f} GiB {name}" for name, size in (shown or parts).items())
