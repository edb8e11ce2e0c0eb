"""The device mesh of a run."""

import math

import jax

from moe_jax.experiments import Experiment
from moe_jax.sharding import processes
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.rules import AXES


def make_checked_partition(experiment: Experiment, config: str) -> Partition:
    """Makes the partition of an experiment over all devices and checks that processes agree.

    All processes must call it; they must have the same versions and configuration.

    Args:
        experiment: the experiment.
        config: operative configuration of the experiment, as a gin file.

    Raises:
        UserError: if the processes differ, the mesh does not fit the devices, or the batch does
            not fit the mesh.
    """
    processes.check_consistent({**processes.versions(), **processes.config_bindings(config)})
    return experiment.partition()


def mesh_sizes(partition: Partition) -> dict[str, int]:
    """Returns the number of devices along every mesh axis."""
    return {axis: partition.size(axis) for axis in AXES}


def mesh_summary(partition: Partition) -> str:
    """Returns a one-line summary of the axes and devices of a mesh."""
    sizes = {axis: size for axis, size in mesh_sizes(partition).items() if size > 1}
    shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    line = f"{shape}: {math.prod(sizes.values())} devices"
    count = jax.process_count()
    return f"{line} of {count} processes" if count > 1 else line
