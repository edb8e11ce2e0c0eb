"""Checkpoints through Orbax: asynchronous, atomic, the last few kept.

A checkpoint holds, in one atomic step directory: `variables` (parameters and router state, all
that evaluation needs), `optimizer`, `data` (the position in the training data) and `meta`. All
processes of a run save and restore together; how many there are does not matter to what is saved.
"""

import dataclasses
from typing import Any, Protocol

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState, abstract_state

# 2: the position in the data by stream; 1 had that of the only stream.
FORMAT_VERSION = 2
_READABLE = (1, 2)


class Position(Protocol):
    """Something whose position can be saved to a directory and restored from it."""

    def save(self, directory: epath.Path) -> None:
        """Writes the position."""

    def restore(self, directory: epath.Path) -> None:
        """Goes to a written position."""


class _PositionHandler(ocp.CheckpointHandler):
    """Lets Orbax write a `Position` as an item of a checkpoint."""

    def save(self, directory: epath.Path, args: "_SavePosition") -> None:
        args.position.save(directory)

    def restore(self, directory: epath.Path, args: "_RestorePosition") -> None:
        args.position.restore(directory)


@ocp.args.register_with_handler(_PositionHandler, for_save=True)
@dataclasses.dataclass
class _SavePosition(ocp.args.CheckpointArgs):
    position: Position


@ocp.args.register_with_handler(_PositionHandler, for_restore=True)
@dataclasses.dataclass
class _RestorePosition(ocp.args.CheckpointArgs):
    position: Position


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When to save and what to keep.

    Attributes:
        every: steps between checkpoints; the last step is always saved.
        keep: how many of the latest are kept.
    """

    every: int = 1000
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"Checkpoints.{name} must be above 0, not {getattr(self, name)}")


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, directory: epath.Path, config: CheckpointConfig | None = None):
        self._config = config or CheckpointConfig()
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.LatestN(self._config.keep),
                cleanup_tmp_directories=config is not None,
                create=config is not None,
            ),
        )

    def latest(self) -> int | None:
        """Returns the latest complete step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Returns all complete steps."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: TrainState, position: Position, last: bool = False) -> None:
        """Saves without waiting for the disk, if it is time or this is the last step."""
        due = step % self._config.every == 0 or last
        if not due or step == self.latest():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(_tree(state.variables)),
                optimizer=ocp.args.StandardSave(_listed(state.optimizer_state)),
                data=_SavePosition(position),
                meta=ocp.args.JsonSave({"format_version": FORMAT_VERSION, "step": step}),
            ),
            force=True,
        )

    def restore(
        self, step: int, model: LanguageModel, optimizer: Optimizer, position: Position
    ) -> TrainState:
        """Restores everything that training needs, and moves `position`.

        Raises:
            UserError: if the checkpoint is of another model, optimiser or data stream.
        """
        abstract = abstract_state(model, optimizer)
        optimizer_tree = _listed(_placed(abstract.optimizer_state))
        restored = self._restore(
            step,
            variables=ocp.args.StandardRestore(_placed(_tree(abstract.variables))),
            optimizer=ocp.args.StandardRestore(optimizer_tree),
            data=_RestorePosition(position),
        )
        structure = jax.tree.structure(abstract.optimizer_state)
        leaves = [restored["optimizer"][name] for name in optimizer_tree]
        return TrainState(
            jax.make_array_from_callback(
                (), _placed(abstract.step).sharding, lambda index: np.asarray(step, np.int32)
            ),
            Variables(**restored["variables"]),
            jax.tree.unflatten(structure, leaves),
        )

    def restore_variables(self, step: int, model: LanguageModel) -> Variables:
        """Restores parameters and router state only.

        Raises:
            UserError: if the checkpoint is of another model.
        """
        args = ocp.args.StandardRestore(_placed(_tree(model.abstract())))
        return Variables(**self._restore(step, variables=args)["variables"])

    def _restore(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        meta = self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
        version = meta["meta"]["format_version"]
        if version not in _READABLE:
            readable = " and ".join(map(str, _READABLE))
            raise UserError(f"the checkpoint has format {version}, this program reads {readable}")
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"the checkpoint at step {step} in {self._manager.directory} does not fit this "
                f"configuration: {reason}"
            ) from error

    def wait(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends Orbax's threads."""
        self.wait()
        self._manager.close()


def _tree(variables: Variables) -> dict[str, Any]:
    return {"params": variables.params, "router_state": variables.router_state}


def _placed(tree: Any) -> Any:
    """Puts arrays that say nothing else on one device, wherever they were saved from."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device),
        tree,
    )


def _listed(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path: a form that does not depend on optax's own classes."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
