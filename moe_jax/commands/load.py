"""From a run directory to its experiment and trained arrays."""

from etils import epath

from moe_jax import config, experiment
from moe_jax.errors import UserError
from moe_jax.experiment import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training import run_directory
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.misfit import explaining


def load_experiment(
    checkpoint: str, files: list[str], bindings: list[str], search_paths: list[str]
) -> tuple[epath.Path, Experiment]:
    """Returns a run's directory and what it describes; gin files and bindings come on top.

    Raises:
        UserError: if there is no such run, or for a mistake in the configuration.
    """
    directory = run_directory.find_run(checkpoint)
    own = directory / run_directory.CONFIG_FILE
    return directory, experiment.load([str(own), *files], bindings, search_paths)


def load_variables(
    directory: epath.Path, step: int | None, model: LanguageModel
) -> tuple[int, Variables]:
    """Returns the step and the arrays of a run's checkpoint, the latest by default.

    Raises:
        UserError: if there is no such checkpoint.
    """
    checkpoints = Checkpoints(directory / run_directory.CHECKPOINTS)
    try:
        steps = checkpoints.steps()
        if not steps:
            raise UserError(f"{directory} has no complete checkpoint yet")
        step = steps[-1] if step is None else step
        if step not in steps:
            raise UserError(
                f"{directory} has no checkpoint at step {step}; "
                f"it has: {', '.join(map(str, steps))}"
            )
        with explaining(directory, config.operative(), trains=False):
            return step, checkpoints.restore_variables(step, model)
    finally:
        checkpoints.close()
