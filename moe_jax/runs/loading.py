"""Runs and their trained models, loaded from run directories."""

import dataclasses
import json
from typing import Any

from etils import epath

from moe_jax import config, experiments, strict_json
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.partition import SINGLE_DEVICE, Partition
from moe_jax.sharding.processes import gather, propagate_errors
from moe_jax.training.checkpointing.best import Ranking
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import explain_mismatch
from moe_jax.training.initial import Step
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
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
    run: Run, step: Step | None = None, partition: Partition = SINGLE_DEVICE
) -> TrainedModel:
    """Restores the model of a run from a checkpoint.

    Args:
        run: the run.
        step: the step of the checkpoint, `best` (by `Checkpoints.best_is`), or `latest`, as None.
        partition: shards the model over devices.

    Raises:
        UserError: if there is no such checkpoint, or it does not fit the configuration.
    """
    model = run.experiment.language_model(partition)
    step, variables = load_variables(run, step, model)
    return TrainedModel(run, model, step, variables)


def load_variables(run: Run, step: Step | None, model: LanguageModel) -> tuple[int, Variables]:
    """Restores the variables of a checkpoint; the latest if `step` is `latest` or None.

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
            ranking = run.experiment.checkpoints.ranking if step == "best" else Ranking.of("")
            chosen = choose_step(run.directory, checkpoints, step, ranking)
            if failed is not None and failed[0] == chosen:
                raise failed[1]
            try:
                with propagate_errors(), explain_mismatch(run.directory, run.config, trains=False):
                    return chosen, checkpoints.restore_variables(chosen, model)
            except UserError as error:
                if step not in (None, "latest"):
                    raise
                failed = (chosen, error)
        finally:
            checkpoints.close()


def choose_step(
    directory: epath.Path, checkpoints: CheckpointManager, step: Step | None, ranking: Ranking
) -> int:
    """Returns the number of a step; on all processes that which the first process finds.

    All processes of a run must call it.

    Args:
        directory: the run directory, for messages.
        checkpoints: its checkpoints.
        step: a number, `best`, or `latest`, as None.
        ranking: what the best is.

    Raises:
        UserError: if there is no such checkpoint.
    """
    evaluations: dict[int, Any] = {}
    if step == "best":
        # Checkpoints of earlier versions have no metrics.
        records = [r for r in read_metrics(directory) if r["kind"] == "eval"]
        evaluations = {r["step"]: r for r in records if r["step"] in checkpoints.steps()}
        evaluations |= checkpoints.metrics()
    best = ranking.best(evaluations)
    found = json.loads(gather(strict_json.dumps([checkpoints.steps(), best]))[0])
    steps: list[int] = found[0]
    if not steps:
        raise UserError(f"{directory} has no complete checkpoint yet")
    if step is None or step == "latest":
        return steps[-1]
    if step == "best":
        if found[1] is None:
            raise UserError(
                f"{directory} has no checkpoint whose evaluation has {ranking.metric}, by which "
                "the best is chosen (Checkpoints.best_is): save at steps that are evaluated "
                "(Checkpoints.every, Train.eval_every); it has the steps: "
                f"{', '.join(map(str, steps))}"
            )
        return int(found[1])
    if step not in steps:
        raise UserError(
            f"{directory} has no checkpoint at step {step}; it has: {', '.join(map(str, steps))}"
        )
    return step
