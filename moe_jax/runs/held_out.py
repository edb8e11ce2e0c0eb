"""The evaluations during training: held-out loss, and scores of the task if they are wanted."""

from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel
from moe_jax.runs.preparation import OpenData
from moe_jax.training.loop import EvaluateFn


def make_evaluate(experiment: Experiment, model: LanguageModel, data: OpenData) -> EvaluateFn:
    """Returns the function that evaluates a model during training.

    With `TaskScores.in_training` its metrics include those of the task, such as `task/accuracy`.
    All processes of a run must call both.

    Raises:
        UserError: if the examples of the task cannot be read or scored.
    """
    evaluator = Evaluator(model, data.held_out, data.bytes_of_token)
    if not experiment.task_scores.in_training:
        return lambda variables: evaluator(variables).as_dict()
    from moe_jax.runs.task_evaluation import TaskScorer

    scorer = TaskScorer(experiment, model, experiment.task_scores.examples)
    return lambda variables: {**evaluator(variables).as_dict(), **scorer(variables)}
