"""Scores of the task of an experiment."""

from moe_jax.errors import UserError
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel, Variables


class TaskScorer:
    """Scores a model on the task of an experiment.

    Raises:
        UserError: as this version scores no tasks.
    """

    def __init__(self, experiment: Experiment, model: LanguageModel, examples: int = 0):
        raise UserError("TaskScores.in_training = True: this version scores no tasks")

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Returns the figures: `task/METRIC`, and `task/causal/METRIC` where that differs."""
        raise NotImplementedError
