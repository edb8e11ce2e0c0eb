"""Connect the processes of a run with `jax.distributed`.

On a TPU pod every host runs one process; all run the same program in step.
"""

import dataclasses
import glob
import os
import signal
from collections.abc import Mapping

import jax

from moe_jax.errors import UserError
from moe_jax.sharding import coordinator_address, rendezvous

_FLAGS = ("--coordinator", "--num_processes", "--process_id")
_TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")
# How long a process that has finished waits for the others.
_SHUTDOWN_SECONDS = 60
# Variables set by srun; the shell of an sbatch script lacks the node list of the step.
_SLURM = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST")


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of a run, and how to connect them.

    Attributes:
        coordinator: HOST:PORT of process 0.
        processes: number of processes.
        process: index of this process.
        local_devices: indices of the local devices of this process; None for all.
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
    """Connects the processes of a run, as given by flags or detected from the environment.

    It must be called before JAX is used, and does nothing for a single process.

    Args:
        coordinator: HOST:PORT of process 0.
        num_processes: number of processes.
        process_id: index of this process, from 0.
        timeout: seconds to wait for the other processes.

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
        coordinator_address.split_address(coordinator)
        cluster = Cluster(coordinator, num_processes, process_id)
    elif any(value is not None for value in given):
        missing = [flag for flag, value in zip(_FLAGS, given, strict=True) if value is None]
        raise UserError(f"{', '.join(_FLAGS)} go together; {' and '.join(missing)} is not given")
    else:
        cluster = _detect(environment(), timeout)
    if cluster is not None and cluster.processes > 1:
        _connect(cluster, timeout)


def environment(variables: Mapping[str, str] | None = None) -> str | None:
    """Returns the cluster environment: `slurm`, `kubernetes`, `tpu`, or None."""
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
    """Lets JAX detect the cluster; returns None if it finds no other processes."""
    if kind is None:
        return None
    # JAX detects clusters only inside `initialize`, which aborts if a process is missing.
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
    rendezvous.wait_for_processes(cluster.coordinator, cluster.processes, cluster.process, timeout)
    # By default JAX listens on all addresses of the machine.
    first = cluster.process == 0
    listens_on = coordinator_address.bind_address(cluster.coordinator) if first else None
    # JAX installs a SIGTERM handler, which would swallow the signal until training starts.
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
