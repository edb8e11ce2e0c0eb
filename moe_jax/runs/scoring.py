"""Curriculum order of training rows, computed from the routing of a trained model."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.runs.loading import Run, TrainedModel
from moe_jax.sharding.processes import propagate_errors
from moe_jax.training.run_directory.directory_lock import DirectoryLock


@dataclasses.dataclass(frozen=True)
class CurriculumScores:
    """The curriculum order of all training rows, from easy to hard, and a summary of the scores.

    Attributes:
        order: the row numbers in curriculum order.
        share_by_layer: fraction of tokens with two or more experts, by mixture-of-experts layer.
        share_first_tenth: mean of this fraction in the first tenth of the order.
        share_last_tenth: mean of this fraction in the last tenth of the order.
    """

    order: np.ndarray
    share_by_layer: list[float]
    share_first_tenth: float
    share_last_tenth: float


def scored_data(run: Run) -> DataConfig:
    """Returns the data configuration of a run with a curriculum, by default `similarity`."""
    data = run.experiment.data
    return dataclasses.replace(data, curriculum=data.curriculum or "similarity")


def read_training_rows(data: DataConfig) -> Any:
    """Reads the training rows to score; all processes of a run must call it."""
    with propagate_errors():
        from moe_jax.data.pipeline.curriculum import read_train_rows

        return read_train_rows(data)


def score(
    trained: TrainedModel,
    rows: Any,
    directory: epath.Path,
    command: Sequence[str],
    say: Callable[[str], object],
) -> CurriculumScores:
    """Scores every training row of a run's task and writes the curriculum order to a directory.

    An interrupted job resumes where it stopped.

    Args:
        trained: the model that scores.
        rows: see `read_training_rows`.
        directory: existing directory for the scores and the order.
        command: command line of this process, for `owner.json`.
        say: prints a line.

    Raises:
        UserError: if another process uses the directory.
    """
    from moe_jax.evaluation.complexity import ComplexityScorer, make_order, read_vectors

    about = {"checkpoint": str(trained.run.directory), "step": trained.step}
    scorer, data = ComplexityScorer(trained.model), scored_data(trained.run)
    with DirectoryLock(directory, list(command), say):
        order = make_order(scorer, trained.variables, rows, data, directory, about)
        vectors = read_vectors(directory)
    first, last = (vectors[part].mean() for part in np.array_split(order, 10)[::9])
    return CurriculumScores(
        order, [float(value) for value in vectors.mean(0)], float(first), float(last)
    )
