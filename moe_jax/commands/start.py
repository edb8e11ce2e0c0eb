"""What the verbs that run on a mesh do first."""

import math
import os
import sys

import jax
from rich.console import Console, ConsoleRenderable, RenderHook

from moe_jax import config
from moe_jax.commands import console
from moe_jax.commands.output import Output
from moe_jax.experiment import Experiment
from moe_jax.sharding import processes
from moe_jax.sharding.mesh import AXES
from moe_jax.sharding.partition import Partition
from moe_jax.waiting import hide


def make_console() -> Console:
    """Returns the console of this process: of several, only the first prints."""
    made = console.make_console(quiet=not processes.is_main())
    made.push_render_hook(_Aside())
    return made


class _Aside(RenderHook):
    """Takes the line of what is waited for away before anything else is printed."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Returns what is printed as it is."""
        hide()
        return renderables


def make_checked_partition(described: Experiment) -> Partition | None:
    """Makes the mesh of an experiment over all devices; None for a single device.

    All processes call it and find out that they are about to do the same.

    Raises:
        UserError: if they are not, the mesh does not fit the devices, or the batch not the mesh.
    """
    processes.check_consistent(
        {**processes.versions(), **processes.config_bindings(config.operative())}
    )
    return described.partition()


def mesh_sizes(partition: Partition | None) -> dict[str, int]:
    """Returns the devices along every axis."""
    return {axis: 1 if partition is None else partition.size(axis) for axis in AXES}


def mesh_line(partition: Partition) -> str:
    """Returns a mesh in words."""
    sizes = {axis: size for axis, size in mesh_sizes(partition).items() if size > 1}
    shape = " x ".join(f"{axis} {size}" for axis, size in sizes.items())
    line = f"{shape}: {math.prod(sizes.values())} devices"
    count = jax.process_count()
    return f"{line} of {count} processes" if count > 1 else line


def hide_library_output() -> None:
    """Drops what C++ libraries (Gloo) print to standard output; Python's own is kept."""
    sys.stdout.flush()
    own = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    stream = os.fdopen(own, "w", buffering=1)
    sys.stdout = sys.stdout.moved(stream) if isinstance(sys.stdout, Output) else stream
