"""Objects that save their own state as an item of a checkpoint, such as the data iterator."""

import dataclasses
from typing import Protocol

import orbax.checkpoint as ocp
from etils import epath


class Checkpointable(Protocol):
    """Something whose position can be saved to a directory and restored from it."""

    def save(self, directory: epath.Path) -> None:
        """Writes the position."""

    def restore(self, directory: epath.Path) -> None:
        """Goes to a written position."""


class _CheckpointableHandler(ocp.CheckpointHandler):
    """Lets Orbax write a `Checkpointable` as an item of a checkpoint."""

    def save(self, directory: epath.Path, args: "CheckpointableSave") -> None:
        args.position.save(directory)

    def restore(self, directory: epath.Path, args: "CheckpointableRestore") -> None:
        args.position.restore(directory)


@ocp.args.register_with_handler(_CheckpointableHandler, for_save=True)
@dataclasses.dataclass
class CheckpointableSave(ocp.args.CheckpointArgs):
    """Says that a position is to be written."""

    position: Checkpointable


@ocp.args.register_with_handler(_CheckpointableHandler, for_restore=True)
@dataclasses.dataclass
class CheckpointableRestore(ocp.args.CheckpointArgs):
    """Says that a position is to be moved to what is written."""

    position: Checkpointable
