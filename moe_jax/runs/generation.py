"""Text generation with a trained model."""

from collections.abc import Iterator
from typing import Any

import jax

from moe_jax.data.pipeline.batch_source import vocabulary_for
from moe_jax.data.pipeline.example_prompts import ExamplePrompt, encode_prompt, has_questions
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.experiments import Experiment
from moe_jax.models.functional import Variables
from moe_jax.runs.loading import TrainedModel
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import is_main

# The sample after training needs the whole model on one device; larger models skip it on a mesh.
_MAX_SAMPLE_BYTES = 2 << 30


class TextGenerator:
    """Generates text with a trained model on one device, with causal routing.

    Args:
        trained: the model, on a single device.
        sampling: settings of sampling; None for those of the run.

    Raises:
        UserError: if the vocabulary cannot be read.

    Attributes:
        answers_questions: true if the model was trained on questions and answers.
    """

    def __init__(self, trained: TrainedModel, sampling: SamplingConfig | None = None):
        experiment = trained.run.experiment
        self._data, self._variables = experiment.data, trained.variables
        sampling = sampling or experiment.sampling
        self._seed = sampling.seed
        self._vocabulary = vocabulary_for(experiment.data)
        self._generate = Generator(trained.model, sampling, self._vocabulary.eos_id)
        self.answers_questions = has_questions(experiment.data)

    def __call__(self, prompt: str, samples: int = 1) -> Iterator[str]:
        """Yields continuations of a prompt, each sampled with a different seed."""
        for index in range(samples):
            yield self.generate(prompt, self._seed + index)

    def generate(self, prompt: str, seed: int) -> str:
        """Returns a continuation of a prompt."""
        tokens = encode_prompt(self._data, self._vocabulary, prompt)
        return str(self._vocabulary.decode(self._generate(self._variables, tokens, seed)))


def sample_after_training(
    experiment: Experiment,
    partition: Partition,
    variables: Variables,
    vocabulary: Any,
    asked: ExamplePrompt,
) -> str | None:
    """Generates one text on one device: an answer if the data are questions and answers.

    Returns:
        the text; None on all processes but the first, and if the model is too large for one
        device.
    """
    if partition.is_sharded:
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables))
        if size > _MAX_SAMPLE_BYTES:
            return None
        whole = jax.jit(lambda tree: tree, out_shardings=partition.replicated)(variables)
        variables = jax.tree.map(lambda array: array.addressable_data(0), whole)
    if not is_main():
        return None
    generator = Generator(experiment.language_model(), experiment.sampling, vocabulary.eos_id)
    question = asked.prompt if asked.is_question else ""
    tokens = encode_prompt(experiment.data, vocabulary, question)
    return str(vocabulary.decode(generator(variables, tokens)))
