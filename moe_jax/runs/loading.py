"""Runs and their trained models, loaded from run directories."""

import dataclasses
import json

from etils import epath

from moe_jax import config, experiments
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.sharding.processes import gather, propagate_errors
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import explain_mismatch
from moe_jax.training.run_directory import run_directory


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory and the experiment in it.

    Attributes:
        directory: the run directory.
        experiment: the experiment as configured for this process, which can differ from the one
            that was trained.
        config: the operative configuration of the experiment, as a gin file.
    """

    directory: epath.Path
    experiment: Experiment
    config: str


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model with the arrays of a checkpoint.

    Attributes:
        run: the run that the checkpoint belongs to.
        model: the model, for a mesh or a single device.
        step: the step of the checkpoint.
        variables: parameters and router state.
    """

    run: Run
    model: LanguageModel
    step: int
    variables: Variables


def load_run(checkpoint: str, source: ConfigSource) -> Run:
    """Loads the experiment of a run directory, overridden by gin files and bindings.

    All processes of a run must call it.

    Args:
        checkpoint: the run directory, or its `checkpoints/`.
        source: files and bindings that override the configuration of the run.

    Raises:
        UserError: if there is no such run, or for a mistake in the configuration.
    """
    with propagate_errors():
        directory = run_directory.find_run(checkpoint)
        saved_config = str(directory / run_directory.CONFIG_FILE)
        experiment = experiments.load(source.over_run(saved_config))
    return Run(directory, experiment, config.operative())


def load_model(
    run: Run, step: int | None = None, partition: Partition = SINGLE_DEVICE
) -> TrainedModel:
    """Restores the model of a run from a checkpoint.

    Args:
        run: the run.
        step: the step of the checkpoint; None for the latest.
        partition: shards the model over devices.

    Raises:
        UserError: if there is no such checkpoint, or it does not fit the configuration.
    """
    model = run.experiment.language_model(partition)
    step, variables = load_variables(run, step, model)
    return TrainedModel(run, model, step, variables)


def load_variables(run: Run, step: int | None, model: LanguageModel) -> tuple[int, Variables]:
    """Restores the variables of a checkpoint; the latest if `step` is None.

    A run that is still training may delete the latest checkpoint while it is read; then the next
    one, which exists by that time, is read instead.

    Returns:
        the step of the checkpoint and the variables.

    Raises:
        UserError: if there is no such checkpoint, or it does not fit the configuration.
    """
    failed: tuple[int, UserError] | None = None
    while True:
        checkpoints = CheckpointManager(run.directory / run_directory.CHECKPOINTS)
        try:
            # All processes restore the step that the first process finds.
            steps = json.loads(gather(json.dumps(checkpoints.steps()))[0])
            chosen = _choose(run.directory, steps, step)
            if failed is not None and failed[0] == chosen:
                raise failed[1]
            try:
                with propagate_errors(), explain_mismatch(run.directory, run.config, trains=False):
                    return chosen, checkpoints.restore_variables(chosen, model)
            except UserError as error:
                if step is not None:
                    raise
                failed = (chosen, error)
        finally:
            checkpoints.close()


def _choose(directory: epath.Path, steps: list[int], step: int | None) -> int:
    if not steps:
        raise UserError(f"{directory} has no complete checkpoint yet")
    if step is not None and step not in steps:
        raise UserError(
            f"{directory} has no checkpoint at step {step}; it has: {', '.join(map(str, steps))}"
        )
    return steps[-1] if step is None else step
