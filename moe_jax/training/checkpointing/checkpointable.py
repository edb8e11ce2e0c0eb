"""Objects that save their own state as an item of a checkpoint, such as the data iterator."""

import dataclasses
from typing import Protocol

import orbax.checkpoint as ocp
from etils import epath


class Checkpointable(Protocol):
    """An object that saves its state to a directory and restores it, such as a data iterator."""

    def save(self, directory: epath.Path) -> None:
        """Writes the state to the directory."""

    def restore(self, directory: epath.Path) -> None:
        """Restores the state from the directory."""


class _CheckpointableHandler(ocp.CheckpointHandler):
    """Saves and restores a `Checkpointable` as an item of an Orbax checkpoint."""

    def save(self, directory: epath.Path, args: "CheckpointableSave") -> None:
        args.item.save(directory)

    def restore(self, directory: epath.Path, args: "CheckpointableRestore") -> None:
        args.item.restore(directory)


@ocp.args.register_with_handler(_CheckpointableHandler, for_save=True)
@dataclasses.dataclass
class CheckpointableSave(ocp.args.CheckpointArgs):
    """Arguments to save a `Checkpointable`."""

    item: Checkpointable


@ocp.args.register_with_handler(_CheckpointableHandler, for_restore=True)
@dataclasses.dataclass
class CheckpointableRestore(ocp.args.CheckpointArgs):
    """Arguments to restore a `Checkpointable` in place."""

    item: Checkpointable
