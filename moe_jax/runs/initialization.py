"""The start of a run from the checkpoint of another run (`Initial`)."""

import contextlib
import dataclasses
from collections.abc import Iterator

from etils import epath

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel
from moe_jax.runs.loading import Run, choose_step
from moe_jax.sharding.processes import config_bindings, propagate_errors
from moe_jax.training.checkpointing.best import Ranking
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import (
    CheckpointMismatch,
    changed_settings,
    set_back,
)
from moe_jax.training.checkpointing.transfer import continue_optimizer, transfer_state
from moe_jax.training.initial import split_checkpoint
from moe_jax.training.run_directory import data_manifest, run_directory
from moe_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class InitialState:
    """The state before the first step, from another run.

    Attributes:
        state: the state, at step 0.
        message: what was taken from where, in one line.
        record: what `run.json` says of it.
    """

    state: TrainState
    message: str
    record: dict[str, str | int]


def initial_state(run: Run, model: LanguageModel) -> InitialState | None:
    """Reads the checkpoint that a run starts from; returns None if it starts from random values.

    All processes of a run must call it.

    Raises:
        UserError: if there is no such checkpoint, if it is damaged, or if it has another model or
            vocabulary.
    """
    initial = run.experiment.initial
    if initial.checkpoint is None:
        return None
    path, step = split_checkpoint(initial.checkpoint, initial.step)
    with propagate_errors(), _naming("Initial.checkpoint"):
        source = run_directory.find_run(path)
    with propagate_errors():
        _check_vocabulary(source, run)
    optimizer, seed = run.experiment.optimizer, run.experiment.train.seed
    checkpoints = CheckpointManager(source / run_directory.CHECKPOINTS)
    try:
        with _naming("Initial.checkpoint"):
            chosen = choose_step(source, checkpoints, step, saved_ranking(source))
        with propagate_errors(), _explaining(source, run):
            state, transfer = transfer_state(checkpoints, chosen, model, optimizer, seed)
            if initial.optimizer == "continued":
                state = continue_optimizer(checkpoints, chosen, state, model, optimizer)
    finally:
        checkpoints.close()
    message = f"Starting from step {chosen} of {source}: {transfer}; optimiser {initial.optimizer}"
    record: dict[str, str | int]
    record = {"checkpoint": str(source), "step": chosen, "optimizer": initial.optimizer}
    return InitialState(state, message, record)


def saved_ranking(directory: epath.Path) -> Ranking:
    """Returns the ranking of a run by the `Checkpoints.best_is` that it was trained with."""
    bindings = config_bindings((directory / run_directory.CONFIG_FILE).read_text())
    value = bindings.get("Checkpoints.best_is", "''")
    return Ranking.of(bindings.get(value.removeprefix("%"), value).strip("'\""))


def _check_vocabulary(source: epath.Path, run: Run) -> None:
    """Refuses a checkpoint whose tokens have other meanings, if both vocabularies are known."""
    before = run_directory.read_record(source).get("vocabulary_digest")
    now = data_manifest.vocabulary_digest(run.experiment.data)
    if before is None or now is None or before == now:
        return
    bindings = config_bindings((source / run_directory.CONFIG_FILE).read_text())
    trained = bindings.get("Data.vocabulary", "another one")
    raise UserError(
        f"{source} was trained with the vocabulary {trained}, and this run has "
        f"{run.experiment.data.vocabulary!r}, which is another one: its tokens would mean other "
        f"pieces of text; set --gin.Data.vocabulary={trained}"
    )


@contextlib.contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Puts the name of the setting before an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


@contextlib.contextmanager
def _explaining(source: epath.Path, run: Run) -> Iterator[None]:
    """Replaces a `CheckpointMismatch` by an error that names the settings that differ."""
    try:
        yield
    except CheckpointMismatch as error:
        where = f"the checkpoint at step {error.step} in {source}"
        before = config_bindings((source / run_directory.CONFIG_FILE).read_text())
        changed = changed_settings(before, config_bindings(run.config), error.item)
        if error.item == "optimizer":
            reason = set_back(changed) if changed else str(error)
            raise UserError(
                f"Initial.optimizer = 'continued': the optimiser state of {where} does not fit "
                f"({reason}); or set Initial.optimizer = 'fresh'"
            ) from None
        # The router may be another one.
        changed = {name: values for name, values in changed.items() if name.startswith("Model.")}
        reason = set_back(changed) if changed else str(error)
        raise UserError(
            f"Initial.checkpoint: {where} has other parameters than this model: {reason}"
        ) from None
