"""Collective operations of the processes of a run: barriers, errors, consistency checks.

With a single process every operation returns immediately.
"""

import contextlib
import functools
import importlib.metadata
import json
import platform
import socket
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from moe_jax import __version__
from moe_jax.errors import UserError
from moe_jax.renamed_settings import current_bindings

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def is_main() -> bool:
    """Returns True for the main process, which writes and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(text: str) -> list[str]:
    """Returns the texts of all processes, in order. All processes must call it."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(data.size))).reshape(-1)
    # A common size in coarse steps, since each size compiles another program.
    size = 1 << max(int(sizes.max()), 4096).bit_length()
    buffer = np.zeros(size, np.uint8)
    buffer[: data.size] = data
    rows = np.asarray(multihost_utils.process_allgather(buffer)).reshape(len(sizes), size)
    return [row[:n].tobytes().decode() for row, n in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def propagate_errors() -> Iterator[None]:
    """A context manager that raises a `UserError` of any process on all processes.

    The code inside must not wait for other processes. All processes must enter it.

    Raises:
        UserError: the error of the first process that failed, with its index and host.
    """
    error: UserError | None = None
    try:
        yield
    except UserError as raised:
        error = raised
    if jax.process_count() == 1:
        if error is not None:
            raise error
        return
    errors = gather(json.dumps([socket.gethostname(), str(error) if error else ""]))
    failed = [(i, *json.loads(text)) for i, text in enumerate(errors) if json.loads(text)[1]]
    if not failed:
        return
    process, host, message = failed[0]
    everywhere = len(failed) == len(errors) and len({m for *_, m in failed}) == 1
    raise UserError(message if everywhere else f"process {process} ({host}): {message}")


def versions() -> dict[str, str]:
    """Returns the versions of Python and packages, which must be equal on all processes."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"Python": platform.python_version(), "moe_jax": __version__, **packages}


def config_bindings(config: str) -> dict[str, str]:
    """Returns the bindings of an operative gin configuration by name, in their current names."""
    facts: dict[str, str] = {}
    # Long values continue in indented lines.
    joined = config.replace(" = \\\n", " = ")
    name = None
    for line in joined.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0].isspace() and name is not None:
            facts[name] += " " + line.strip()
        elif " = " in line:
            name, _, value = line.partition(" = ")
            facts[name] = value.strip()
        else:
            name = None
            facts[line] = "yes"
    return current_bindings(facts)


def check_consistent(facts: Mapping[str, str]) -> None:
    """Checks that all processes have the same configuration. All processes must call it.

    Args:
        facts: values by name, such as versions and settings.

    Raises:
        UserError: on every process, naming the differing values and their processes.
    """
    if jax.process_count() == 1:
        return
    texts = gather(json.dumps([socket.gethostname(), dict(facts)]))
    if problem := describe_differences([tuple(json.loads(text)) for text in texts]):
        raise UserError(problem)


def describe_differences(facts: list[tuple[str, dict[str, str]]]) -> str | None:
    """Describes the facts that differ between processes; returns None if none do.

    Args:
        facts: host name and facts of each process.
    """
    differences = []
    for name in dict.fromkeys(name for _, values in facts for name in values):
        holders: dict[str, list[int]] = {}
        for process, (_, values) in enumerate(facts):
            holders.setdefault(values.get(name, "not set"), []).append(process)
        if len(holders) > 1:
            parts = [
                f"{_short(value)} in {_named(processes, facts)}"
                for value, processes in holders.items()
            ]
            differences.append(f"{name} is {', '.join(parts)}")
    if not differences:
        return None
    more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
    return f"the processes are not the same: {'; '.join(differences[:3])}{more}"


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}..."


def _named(processes: list[int], facts: list[tuple[str, dict[str, str]]]) -> str:
    names = [f"{process} ({facts[process][0]})" for process in processes[:4]]
    more = f" and {len(processes) - 4} more" if len(processes) > 4 else ""
    return f"process{'es' if len(processes) > 1 else ''} {', '.join(names)}{more}"


class DelayedMaximum:
    """The maximum of a value over all processes, one call late and without blocking.

    Each call of `update` starts a reduction on the devices and returns the result of the one that
    the previous call started, which the devices have completed by then. All processes must call it
    equally often. With a single process no reduction is needed.
    """

    def __init__(self) -> None:
        self._value = 0
        self._pending: jax.Array | None = None
        self._alone = jax.process_count() == 1

    def update(self, value: int) -> int:
        """Starts the reduction of `value`; returns the maximum of the previous call.

        Args:
            value: from 0 to 127; a single process gets it back immediately.
        """
        if self._alone:
            return value
        before = self._pending
        self._pending = _compiled_maximum()(_per_device(value))
        return 0 if before is None else int(before)


@functools.cache
def _per_device(value: int) -> jax.Array:
    """Returns a global array with one element per device, `value` on the local ones."""
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))
    block = np.full((1,), value, np.int32)
    return jax.make_array_from_callback((jax.device_count(),), sharding, lambda index: block)


@functools.cache
def _compiled_maximum() -> Callable[[jax.Array], jax.Array]:
    mesh = Mesh(np.array(jax.devices()), ("all",))
    return jax.jit(lambda x: x.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
