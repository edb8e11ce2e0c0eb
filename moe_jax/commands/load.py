"""From a run directory to its experiment and trained arrays."""

import json

from etils import epath

from moe_jax import config, experiment
from moe_jax.errors import UserError
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.processes import gather, propagate_errors
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.mismatch import explain_mismatch
from moe_jax.training.run_directory import run_directory


def load_experiment(
    checkpoint: str, files: list[str], bindings: list[str], search_paths: list[str]
) -> tuple[epath.Path, Experiment]:
    """Returns a run's directory and what it describes; gin files and bindings come on top.

    Raises:
        UserError: if there is no such run, or for a mistake in the configuration.
    """
    directory = run_directory.find_run(checkpoint)
    own = str(directory / run_directory.CONFIG_FILE)
    return directory, experiment.load([own, *files], bindings, search_paths, run=own)


def load_variables(
    directory: epath.Path, step: int | None, model: LanguageModel
) -> tuple[int, Variables]:
    """Returns the step and the arrays of a run's checkpoint, the latest by default.

    The run may go on meanwhile, and remove the checkpoint that is read: then there is a later one,
    which is read instead.

    Raises:
        UserError: if there is no such checkpoint.
    """
    failed: tuple[int, UserError] | None = None
    while True:
        checkpoints = CheckpointManager(directory / run_directory.CHECKPOINTS)
        try:
            # Of several processes, all read what the first one sees.
            steps = json.loads(gather(json.dumps(checkpoints.steps()))[0])
            chosen = _choose(directory, steps, step)
            if failed is not None and failed[0] == chosen:
                raise failed[1]
            try:
                with (
                    propagate_errors(),
                    explain_mismatch(directory, config.operative(), trains=False),
                ):
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
