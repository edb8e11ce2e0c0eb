"""Save and restore checkpoints with Orbax, asynchronously and atomically.

A checkpoint is one atomic step directory with the items `variables` (parameters and router state,
all that evaluation needs), `optimizer`, `guard`, `data` (the position in the training data) and
`meta` (format, shapes, checksums). Restored arrays are verified against the checksums. All
processes of a run save and restore together; the contents do not depend on their number.
"""

import contextlib
import datetime
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.processes import barrier, is_main
from moe_jax.training.checkpointing.checkpoint_config import CheckpointConfig
from moe_jax.training.checkpointing.checkpoint_items import (
    FORMAT_VERSION,
    READABLE_FORMATS,
    DamagedCheckpoint,
    checkpoint_arrays,
    describe_non_finite,
    finite_metrics,
    flatten_names,
    make_scalar,
    make_sharded_guard,
    orbax_message,
    variables_tree,
    with_default_sharding,
)
from moe_jax.training.checkpointing.checkpointable import (
    Checkpointable,
    CheckpointableRestore,
    CheckpointableSave,
)
from moe_jax.training.checkpointing.checksums import compile_inspect_arrays, inspect_arrays, shapes
from moe_jax.training.checkpointing.mismatch import CheckpointMismatch, differing
from moe_jax.training.error_message import one_line
from moe_jax.training.loss_spike_guard import GuardState
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState, abstract_state


class CheckpointManager:
    """Manages the checkpoints of one run directory.

    Args:
        directory: the directory of the checkpoints.
        config: when to save and which to keep; None to only read.
        report: called with a message about a failed save or a damaged checkpoint.
        check: called before anything is written or moved; raises a `UserError` if this run no
            longer holds the lock of the directory.
    """

    def __init__(
        self,
        directory: epath.Path,
        config: CheckpointConfig | None = None,
        report: Callable[[str], None] = lambda line: None,
        check: Callable[[], None] = lambda: None,
    ):
        self._check = check
        self._config = config or CheckpointConfig()
        self._report, self._directory = report, directory
        self._failed, self._is_writing = 0, False
        self._evaluations: dict[int, Mapping[str, float]] = {}
        self._manager = ocp.CheckpointManager(
            directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._config.policy(self._evaluations),
                cleanup_tmp_directories=config is not None,
                create=config is not None,
                # In the background, a directory that cannot be created would block until a timeout.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
        )
        if self._config.keep_best:
            self._evaluations |= self.metrics()

    def latest(self) -> int | None:
        """Returns the step of the latest complete checkpoint, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def metrics(self) -> dict[int, dict[str, float]]:
        """Returns the metrics of the evaluation that each checkpoint was saved with, by step.

        Checkpoints without an evaluation, or whose evaluation was not finite, are left out.
        """
        found = {}
        for step in self.steps():
            with contextlib.suppress(DamagedCheckpoint, UserError):
                found[step] = self._meta(step).get("metrics")
        return {step: metrics for step, metrics in found.items() if metrics is not None}

    def is_due(self, step: int) -> bool:
        """Returns True if a checkpoint is due at this step."""
        return step % self._config.every == 0

    def prepare(self, state: TrainState) -> None:
        """Compiles the checksums of a save, so that the first save does not wait for it."""
        for tree in checkpoint_arrays(state).values():
            compile_inspect_arrays(tree)

    def save(
        self,
        step: int,
        state: TrainState,
        batches: Checkpointable,
        last: bool = False,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Saves asynchronously, if a checkpoint is due or this is the last step.

        Args:
            step: steps done.
            state: the state after them.
            batches: the iterator over the training data.
            last: save in any case.
            metrics: metrics of the evaluation at this step, for `keep_best`.

        Raises:
            UserError: if the state has non-finite values, which never replace a good checkpoint;
                if too many saves in a row have failed; or if another run holds the directory.
        """
        if not (last or self.is_due(step)):
            return
        self._check()
        if step == self.latest():
            return
        arrays = checkpoint_arrays(state)
        examined = {name: inspect_arrays(tree) for name, tree in arrays.items()}
        self._refuse_not_finite(step, {name: bad for name, (_, bad) in examined.items() if bad})
        meta: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "shapes": {name: shapes(tree) for name, tree in arrays.items()},
            "digests": {name: sums for name, (sums, _) in examined.items()},
            "metrics": finite_metrics(metrics),
        }
        if meta["metrics"] is not None:
            self._evaluations[step] = meta["metrics"]
        # The previous save may still be in progress.
        self.wait()
        try:
            if not self._directory.exists():
                # Orbax would create a new directory, without the rest of the run.
                raise FileNotFoundError(f"the directory {self._directory} is gone")
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardSave(variables_tree(state.variables)),
                    optimizer=ocp.args.StandardSave(arrays["optimizer"]),
                    guard=ocp.args.StandardSave(arrays["guard"]),
                    data=CheckpointableSave(batches),
                    meta=ocp.args.JsonSave(meta),
                ),
                force=True,
            )
            self._is_writing = True
        except Exception as error:
            self._note_failure(error)

    def _refuse_not_finite(self, step: int, bad: dict[str, list[str]]) -> None:
        if not bad:
            return
        self.wait()
        latest = self.latest()
        kept = "there is none before" if latest is None else f"that of step {latest} is kept"
        raise UserError(
            f"the checkpoint of step {step} is not written, for {describe_non_finite(bad)}; {kept} "
            f"in {self._directory}. Training stops: go on from there with a lower learning rate or "
            "other data"
        )

    def wait(self) -> None:
        """Waits until the last save is complete.

        Raises:
            UserError: if saving failed too often.
        """
        try:
            self._manager.wait_until_finished()
            if self._is_writing and self._failed:
                # The directory is back, with its earlier checkpoints.
                self._manager.reload()
            self._failed = 0 if self._is_writing else self._failed
            self._is_writing = False
        except Exception as error:
            self._note_failure(error)

    def _note_failure(self, error: Exception) -> None:
        """Reports a failed save; the manager forgets it."""
        self._failed, self._is_writing = self._failed + 1, False
        line = f"a checkpoint could not be written to {self._directory}: {one_line(error, 200)}"
        self._manager.reload()
        if self._failed >= self._config.failures:
            raise UserError(f"{line} ({self._failed} in a row: training stops)") from error
        self._report(f"{line}; training goes on, and the next save is tried in its turn")

    def restore(
        self, model: LanguageModel, optimizer: Optimizer, batches: Checkpointable
    ) -> tuple[int, TrainState] | None:
        """Restores the latest good checkpoint, including the position of `batches`.

        A damaged checkpoint is reported and moved to the directory `damaged` beside the
        checkpoints; then the previous one is tried.

        Returns:
            (step, state), or None if there are no checkpoints.

        Raises:
            UserError: if a checkpoint belongs to another model, optimiser or data, or if all are
                damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, self._restore_state(step, model, optimizer, batches)
            except DamagedCheckpoint as error:
                reason = str(error)
            # Orbax leaves coroutines behind that warn when they are collected: do so now.
            gc.collect()
            before = [s for s in steps if s < step]
            further = f"going on from step {before[-1]}" if before else "there is no other"
            self._report(f"checkpoint {step} is damaged ({reason}): {further}")
            self._set_aside(step)
        if steps:
            raise UserError(
                f"all {len(steps)} checkpoints in {self._directory} were damaged; they are in "
                f"{self._damaged}. To start anew, give another --output_dir"
            )
        return None

    @property
    def _damaged(self) -> epath.Path:
        return self._directory.parent / "damaged"

    def _set_aside(self, step: int) -> None:
        """Moves a damaged checkpoint to `damaged`, where it can be inspected."""
        self._check()
        barrier(f"damaged {step}")
        if is_main():
            self._damaged.mkdir(parents=True, exist_ok=True)
            target = self._damaged / f"{step}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
            (self._directory / str(step)).rename(target)
        barrier(f"set aside {step}")
        self._manager.reload()

    def _restore_state(
        self, step: int, model: LanguageModel, optimizer: Optimizer, batches: Checkpointable
    ) -> TrainState:
        abstract = abstract_state(model, optimizer)
        wanted = checkpoint_arrays(abstract)
        meta = self._meta(step)
        if "optimizer" not in meta.get("shapes", wanted):
            raise UserError(
                f"the checkpoint at step {step} in {self._directory} has the model only, without "
                "the state of an optimizer: training cannot go on in this run; give another "
                "--output_dir"
            )
        self._check_shapes(step, meta, wanted)
        variables = with_default_sharding(variables_tree(abstract.variables))
        items = {
            "variables": ocp.args.StandardRestore(variables),
            "optimizer": ocp.args.StandardRestore(with_default_sharding(wanted["optimizer"])),
        }
        has_guard = "guard" in meta.get("shapes", {})
        if has_guard:
            items["guard"] = ocp.args.StandardRestore(with_default_sharding(wanted["guard"]))
        restored = self._read(step, meta, items, batches)
        optimizer_leaves = [restored["optimizer"][name] for name in wanted["optimizer"]]
        structure = jax.tree.structure(abstract.optimizer_state)
        return TrainState(
            make_scalar(step, abstract.step),
            Variables(**restored["variables"]),
            jax.tree.unflatten(structure, optimizer_leaves),
            GuardState(**restored["guard"]) if has_guard else make_sharded_guard(abstract.guard),
        )

    def restore_variables(self, step: int, model: LanguageModel) -> Variables:
        """Restores parameters and router state only.

        Raises:
            UserError: if the checkpoint belongs to another model, or is damaged.
        """
        tree = variables_tree(model.abstract())
        return Variables(**self.restore_items(step, {"variables": tree})["variables"])

    def shapes(self, step: int) -> dict[str, dict[str, str]]:
        """Returns type and shape of each array, such as `float32[8,64]`, by item and name.

        Empty for the formats 1 and 2.

        Raises:
            UserError: if the checkpoint is damaged.
        """
        with self._explaining_damage(step):
            return dict(self._meta(step).get("shapes", {}))

    def restore_items(self, step: int, trees: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Restores whole items, given trees of the shapes, types and shardings of their arrays.

        Raises:
            UserError: if an item has other arrays, or is damaged.
        """
        with self._explaining_damage(step):
            meta = self._meta(step)
            self._check_shapes(step, meta, {n: flatten_names(tree) for n, tree in trees.items()})
            items = {
                name: ocp.args.StandardRestore(with_default_sharding(tree))
                for name, tree in trees.items()
            }
            return dict(self._read(step, meta, items))

    @contextlib.contextmanager
    def _explaining_damage(self, step: int) -> Iterator[None]:
        """Replaces a `DamagedCheckpoint` by a `UserError` that names the other checkpoints."""
        try:
            yield
        except DamagedCheckpoint as error:
            self._manager.reload()
            others = ", ".join(str(s) for s in self.steps() if s != step) or "none"
            gone = step not in self.steps()
            what = "was removed while it was read" if gone else f"is damaged ({error})"
            raise UserError(
                f"checkpoint {step} in {self._directory} {what}; others: {others}"
            ) from error

    def _meta(self, step: int) -> dict[str, Any]:
        try:
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            meta: dict[str, Any] = self._manager.restore(step, args=args)["meta"]
            version = meta["format_version"]
        except Exception as error:
            raise DamagedCheckpoint(orbax_message(error)) from error
        if version not in READABLE_FORMATS:
            readable = ", ".join(map(str, READABLE_FORMATS))
            raise UserError(f"the checkpoint has format {version}, this program reads {readable}")
        return meta

    def _check_shapes(
        self, step: int, meta: dict[str, Any], wanted: dict[str, dict[str, Any]]
    ) -> None:
        """Refuses a checkpoint of another model or optimiser, naming the first differences."""
        for item, arrays in wanted.items():
            saved, now = meta.get("shapes", {}).get(item), shapes(arrays)
            if saved is not None and saved != now:
                where = f"the checkpoint at step {step} in {self._directory}"
                message = f"{where} does not fit this configuration: {differing(saved, now)}"
                raise CheckpointMismatch(message, item, step)

    def _read(
        self,
        step: int,
        meta: dict[str, Any],
        items: dict[str, ocp.args.CheckpointArgs],
        batches: Checkpointable | None = None,
    ) -> Any:
        """Reads items of a checkpoint and verifies their checksums."""
        requested = dict(items)
        if batches is not None:
            requested["data"] = CheckpointableRestore(batches)
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(**requested))
        except UserError:
            raise
        except Exception as error:
            if "shapes" not in meta:
                # Formats 1 and 2 have no shapes: damage and a mismatch cannot be distinguished.
                raise CheckpointMismatch(
                    f"the checkpoint at step {step} in {self._directory} does not fit this "
                    f"configuration, or is damaged: {orbax_message(error)}",
                    "variables",
                    step,
                ) from error
            raise DamagedCheckpoint(orbax_message(error)) from error
        for item in items:
            saved = meta.get("digests", {}).get(item)
            now, bad = inspect_arrays(flatten_names(restored[item]))
            wrong = [name for name in now if saved is not None and now[name] != saved.get(name)]
            if wrong:
                raise DamagedCheckpoint(f"{item}: {wrong[0]} is not what was saved")
            if bad:
                raise DamagedCheckpoint(describe_non_finite({item: bad}))
        return restored

    def close(self) -> None:
        """Waits for the last save and ends the threads of Orbax."""
        self.wait()
        self._manager.close()
