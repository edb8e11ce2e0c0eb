"""Scores of tasks with inputs and targets, and the prediction for every example."""

from collections.abc import Sequence

from moe_jax.data.pipeline.task_examples import MissingSplit, TaskExamples, check_lengths
from moe_jax.errors import UserError
from moe_jax.evaluation.rank_classification import LikelihoodScorer
from moe_jax.evaluation.task_run import RunOptions, Say, Scored, TaskResult, TaskRun
from moe_jax.evaluation.task_scores import mean_score
from moe_jax.experiments import Experiment
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.sharding.processes import check_consistent, propagate_errors


class TaskScorer:
    """Scores a model on the task of an experiment, or on each task of its mixture.

    The examples are read once, when it is made. All processes must make it and call it, and all get
    the same figures.

    Args:
        experiment: the experiment; `Experiment.task_scores` has the settings.
        model: the model, for a mesh or a single device.
        examples: number of examples of each task; 0 for `TaskScores.examples`.

    Attributes:
        tasks: the examples of every task that is scored.
        notes: lines for the user, such as tasks of a mixture that are not scored.

    Raises:
        UserError: if there is nothing to score, or an example or a class cannot be scored.
    """

    def __init__(self, experiment: Experiment, model: LanguageModel, examples: int = 0):
        data, settings = experiment.data, experiment.task_scores
        self.notes: list[str] = []
        with propagate_errors():
            self.tasks = self._read(experiment, examples)
            for task in self.tasks:
                experiment.check_vocabulary(task.vocabulary.vocab_size)
                check_lengths(task, data.sequence_length)
        check_consistent({f"the examples of {task.name}": task.digest() for task in self.tasks})
        scorer = LikelihoodScorer(model, data.batch_size, data.sequence_length)
        options = RunOptions(data.sequence_length, settings.normalize_by_length)
        self._runs = [TaskRun(task, model, scorer, options) for task in self.tasks]
        self.notes += [note for run in self._runs for note in run.notes]

    def __call__(self, variables: Variables) -> dict[str, float]:
        """Returns the figures: `task/METRIC`, and `task/causal/METRIC` where that differs.

        `task/METRIC` is routed as in training, except for answers that are generated, which is
        always causal. `task/score` is the mean of the task's main figures. Of a mixture, the
        figures of its tasks are `task/NAME/METRIC`, and `task/score` is the mean over the tasks.
        """
        results = self.evaluate(variables)
        figures: dict[str, float] = {}
        for result in results:
            name = f"{result.task.name}/" if len(results) > 1 else ""
            figures |= _figures(f"task/{name}", result.trained or result.causal)
            if result.trained is not None:
                figures |= _figures(f"task/causal/{name}", result.causal)
        if len(results) > 1:
            figures["task/score"] = mean_over_tasks([r.trained or r.causal for r in results])
            if any(result.trained is not None for result in results):
                figures["task/causal/score"] = mean_over_tasks([r.causal for r in results])
        return figures

    def evaluate(self, variables: Variables, say: Say | None = None) -> list[TaskResult]:
        """Returns the results of all tasks, with a prediction for every example.

        Args:
            variables: variables of the model.
            say: is told now and then what is done.
        """
        return [run(variables, say) for run in self._runs]

    def _read(self, experiment: Experiment, examples: int) -> list[TaskExamples]:
        """Reads the tasks; those of a mixture that cannot be scored are noted."""
        from moe_jax.data.pipeline.task_reader import (
            ReadOptions,
            is_scored,
            names_of_tasks,
            read_task_examples,
        )

        data, settings = experiment.data, experiment.task_scores
        options = ReadOptions(
            split=settings.split or data.eval_split,
            examples=examples or settings.examples,
            classes=settings.classes,
            max_new_tokens=settings.max_new_tokens,
        )
        names, found = names_of_tasks(data), []
        for name, is_trained in names.items():
            try:
                if not is_scored(data, name, options):
                    raise MissingSplit(
                        f"task {name} has neither metrics nor classes (TaskScores.classes)"
                    )
                found.append(read_task_examples(data, name, options))
            except UserError as error:
                # What a mixture is not trained on need not be there.
                skips = isinstance(error, MissingSplit) or not is_trained
                if len(names) == 1 or not skips:
                    raise
                self.notes.append(f"not scored: {error}")
        if not found:
            raise UserError(f"no task of {data.task_name} can be scored; {self.notes[0]}")
        return found


def mean_over_tasks(results: Sequence[Scored]) -> float:
    """Returns the mean of the scores of the tasks that have one; NaN if none has."""
    return mean_score([result.score for result in results if result.metrics])


def has_scores(experiment: Experiment) -> bool:
    """Returns whether any task of an experiment has metrics, or classes to predict.

    It is false for texts without inputs.

    Raises:
        UserError: for a task that does not exist.
    """
    from moe_jax.data.tasks import catalog

    data, settings = experiment.data, experiment.task_scores
    if all(catalog.is_plain_text(name) for name in data.rates):
        return False
    from moe_jax.data.pipeline.task_reader import ReadOptions, is_scored, names_of_tasks

    options = ReadOptions(settings.split or data.eval_split, classes=settings.classes)
    with propagate_errors():
        return any(is_scored(data, name, options) for name in names_of_tasks(data))


def _figures(prefix: str, scored: Scored) -> dict[str, float]:
    if not scored.metrics:
        return {}
    return {prefix + name: v for name, v in {**scored.metrics, "score": scored.score}.items()}
