"""Runs of several processes: starting together, comparing notes, stopping together.

On a TPU pod every host runs one process; all run the same program in step. With one process
everything here is immediate.
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

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")


def is_main() -> bool:
    """Returns whether this process writes and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def gather(text: str) -> list[str]:
    """Returns the texts of all processes, in order. All must call it."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = np.asarray(multihost_utils.process_allgather(np.int32(data.size))).reshape(-1)
    # One size for all, in coarse steps: each makes a program to compile.
    size = 1 << max(int(sizes.max()), 4096).bit_length()
    buffer = np.zeros(size, np.uint8)
    buffer[: data.size] = data
    rows = np.asarray(multihost_utils.process_allgather(buffer)).reshape(len(sizes), size)
    return [row[:n].tobytes().decode() for row, n in zip(rows, sizes, strict=True)]


@contextlib.contextmanager
def propagate_errors() -> Iterator[None]:
    """Makes a `UserError` of one process the error of all, so that none waits for it.

    What is inside must not wait for other processes.

    Raises:
        UserError: the first process's error, with its number and host.
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
    """Returns the versions that all processes must share."""
    packages = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"Python": platform.python_version(), "moe_jax": __version__, **packages}


def config_bindings(config: str) -> dict[str, str]:
    """Returns the bindings of a gin configuration by name."""
    facts: dict[str, str] = {}
    # A value that is longer than a line goes on in indented lines.
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
    return facts


def check_consistent(facts: Mapping[str, str]) -> None:
    """Makes sure that all processes are about to do the same. All must call it.

    Args:
        facts: values by name, such as versions and configuration.

    Raises:
        UserError: on every process, saying which has which value of what.
    """
    if jax.process_count() == 1:
        return
    texts = gather(json.dumps([socket.gethostname(), dict(facts)]))
    if problem := describe_differences([tuple(json.loads(text)) for text in texts]):
        raise UserError(problem)


def describe_differences(facts: list[tuple[str, dict[str, str]]]) -> str | None:
    """Returns where processes differ, None if they do not.

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
    """Lets all processes know what one of them knows, a step later and without waiting.

    `ask(value)` starts a reduction on the devices and `answer()` reads the one started before: by
    then the devices have long done it, as the step before has to be done for it. Every process
    must ask as often as the others. With one process nothing is started.
    """

    def __init__(self) -> None:
        self._value = 0
        self._pending: jax.Array | None = None
        self._alone = jax.process_count() == 1

    def ask(self, value: int) -> int:
        """Tells the others `value`; returns the greatest that any process told the time before.

        Args:
            value: 0 for nothing, up to 127; with one process it is returned at once.
        """
        if self._alone:
            return value
        before = self._pending
        self._pending = _greatest()(_constant(value))
        return 0 if before is None else int(before)


@functools.cache
def _constant(value: int) -> jax.Array:
    """Returns one copy of the value for each device, those of this process with this value."""
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("all",)), PartitionSpec("all"))
    block = np.full((1,), value, np.int32)
    return jax.make_array_from_callback((jax.device_count(),), sharding, lambda index: block)


@functools.cache
def _greatest() -> Callable[[jax.Array], jax.Array]:
    mesh = Mesh(np.array(jax.devices()), ("all",))
    return jax.jit(lambda x: x.max(), out_shardings=NamedSharding(mesh, PartitionSpec()))
