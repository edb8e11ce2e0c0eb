"""Runs of several processes: starting together, comparing notes, stopping together.

On a TPU pod every host runs one process; all run the same program in step. With one process
everything here is immediate.
"""

import contextlib
import dataclasses
import functools
import glob
import importlib.metadata
import json
import os
import platform
import signal
import socket
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from moe_jax import __version__
from moe_jax.errors import UserError
from moe_jax.renamed_settings import current_facts
from moe_jax.sharding import addresses, rendezvous

_FLAGS = ("--coordinator", "--num_processes", "--process_id")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
_TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")
# How long a process that ends waits for the others to end.
_SHUTDOWN_SECONDS = 60
# What srun sets; sbatch's own shell lacks the step's node list.
_SLURM = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Where the processes of a run meet.

    Attributes:
        coordinator: HOST:PORT of process 0.
        processes: how many there are.
        process: which this is.
        local_devices: device numbers that are this process's own, None for all.
    """

    coordinator: str
    processes: int
    process: int
    local_devices: list[int] | None = None


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300,
) -> None:
    """Connects the processes of a run, from flags or from what the environment says.

    Call it before JAX is used. It does nothing for a single process.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: how many processes there are.
        process_id: which of them this is, from 0.
        timeout: seconds to wait for the others.

    Raises:
        UserError: if only some of the flags are given, or a process is missing after `timeout`.
    """
    given = (coordinator, num_processes, process_id)
    cluster: Cluster | None
    if coordinator is not None and num_processes is not None and process_id is not None:
        if num_processes < 1 or not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id = {process_id} must be from 0 to --num_processes - 1 = "
                f"{num_processes - 1}"
            )
        addresses.split_address(coordinator)
        cluster = Cluster(coordinator, num_processes, process_id)
    elif any(value is not None for value in given):
        missing = [flag for flag, value in zip(_FLAGS, given, strict=True) if value is None]
        raise UserError(f"{', '.join(_FLAGS)} go together; {' and '.join(missing)} is not given")
    else:
        cluster = _detect(environment(), timeout)
    if cluster is not None and cluster.processes > 1:
        _connect(cluster, timeout)


def environment(variables: Mapping[str, str] | None = None) -> str | None:
    """Returns what started this process: `slurm`, `kubernetes`, `tpu`, or None."""
    variables = os.environ if variables is None else variables
    if int(variables.get("SLURM_NTASKS", "1")) > 1 and all(v in variables for v in _SLURM):
        return "slurm"
    on_cpu = variables.get("JAX_PLATFORMS") == "cpu"
    if not on_cpu and any(glob.glob(pattern) for pattern in _TPU_DEVICES):
        return "tpu"
    if "KUBERNETES_SERVICE_HOST" in variables and "JOB_COMPLETION_INDEX" in variables:
        return "kubernetes"
    return None


def _detect(kind: str | None, timeout: float) -> Cluster | None:
    """Asks JAX where the processes meet; None where it knows of no others."""
    if kind is None:
        return None
    # JAX detects clusters only inside `initialize`, which aborts where a process is missing.
    from jax._src.clusters import ClusterEnv

    try:
        address, processes, process, devices = ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, int(timeout)
        )
    except Exception as error:
        raise UserError(f"{kind}: JAX cannot find the other processes: {error}") from error
    if address is None or processes is None or process is None:
        if kind == "kubernetes":
            raise UserError(
                "this is a Kubernetes job with an index, but JAX cannot ask for the others: "
                f"install `kubernetes` (pip install 'jax[k8s]'), or give {', '.join(_FLAGS)}"
            )
        return None
    local = list(devices) if devices is not None else None
    return Cluster(str(address), int(processes), int(process), local)


def _connect(cluster: Cluster, timeout: float) -> None:
    rendezvous.meet(cluster.coordinator, cluster.processes, cluster.process, timeout)
    # JAX would listen on all addresses of the machine.
    first = cluster.process == 0
    listens_on = addresses.bind_address(cluster.coordinator) if first else None
    # JAX puts a handler of its own on SIGTERM, which would swallow it until training starts.
    previous = signal.getsignal(signal.SIGTERM)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.process,
        local_device_ids=cluster.local_devices,
        cluster_detection_method="deactivate",
        initialization_timeout=max(int(timeout), 1),
        shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        coordinator_bind_address=listens_on,
    )
    signal.signal(signal.SIGTERM, previous)
    counts = [0] * jax.process_count()
    for device in jax.devices():
        counts[device.process_index] += 1
    if len(set(counts)) > 1:
        shown = ", ".join(f"process {i} has {n}" for i, n in enumerate(counts[:16]))
        raise UserError(f"the processes must have equally many devices, but {shown}")


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
def together() -> Iterator[None]:
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


def config_facts(config: str) -> dict[str, str]:
    """Returns the bindings of a gin configuration by name, in today's names."""
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
    return current_facts(facts)


def check_same(facts: Mapping[str, str]) -> None:
    """Makes sure that all processes are about to do the same. All must call it.

    Args:
        facts: values by name, such as versions and configuration.

    Raises:
        UserError: on every process, saying which has which value of what.
    """
    if jax.process_count() == 1:
        return
    texts = gather(json.dumps([socket.gethostname(), dict(facts)]))
    if problem := difference([tuple(json.loads(text)) for text in texts]):
        raise UserError(problem)


def difference(facts: list[tuple[str, dict[str, str]]]) -> str | None:
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


class Agreement:
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
