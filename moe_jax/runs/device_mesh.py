"""The device mesh of a run."""

import math

import jax

from moe_jax.experiments import Experiment
from moe_jax.sharding import processes
from moe_jax.sharding.mesh import AXES
from moe_jax.sharding.partition import Partition


def make_checked_partition(experiment: Experiment, config: str) -> Partition:
    """Makes the mesh of an experiment over all devices; that of a single device for one.

    All processes call it; it checks that they have the same versions and configuration.

    Args:
        experiment: the experiment.
        config: its operative configuration, as a gin file.

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
    """Returns the axes and devices of a mesh in one line of text."""
    sizes = {axis: size for axis, size in mesh_sizes(partition).items() if size > 1}
    shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    line = f"{shape}: {math.prod(sizes.values())} devices"
    count = jax.process_count()
    return f"{line} of {count} processes" if count > 1 else line
