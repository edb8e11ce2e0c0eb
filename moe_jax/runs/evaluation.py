"""Held-out evaluation of a trained model."""

import dataclasses

import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.data.pipeline.batch_source import open_source
from moe_jax.evaluation.perplexity import Evaluator, Perplexity
from moe_jax.runs.loading import Run, TrainedModel
from moe_jax.sharding.processes import propagate_errors
from moe_jax.training.run_directory.data_manifest import evaluation_notes


@dataclasses.dataclass(frozen=True)
class EvaluationData:
    """The evaluation split of a run's task.

    Attributes:
        batches: the evaluation batches.
        bytes_of_token: number of bytes of text per token, [V].
        notes: differences between these data and those of training, one per line.
    """

    batches: list[Batch]
    bytes_of_token: np.ndarray
    notes: tuple[str, ...]


def read_evaluation_data(run: Run) -> EvaluationData:
    """Reads the evaluation split of a run's task.

    All processes of a run must call it.

    Raises:
        UserError: if the data cannot be used.
    """
    with propagate_errors():
        data = run.experiment.data
        source = open_source(data)
        return EvaluationData(
            batches=source.eval_batches(),
            bytes_of_token=source.token_bytes(run.experiment.model.vocab_size),
            notes=tuple(evaluation_notes(run.directory, data)),
        )


def evaluate(trained: TrainedModel, data: EvaluationData) -> Perplexity:
    """Computes the held-out loss of a trained model, with training and with causal routing."""
    return Evaluator(trained.model, data.batches, data.bytes_of_token)(trained.variables)
