"""Example prompts for models that were trained on a task.

The tasks are known by name, so that the data need not exist. `has_questions` imports TensorFlow for
some tasks without cached rows, `has_padding` never does.
"""

import dataclasses
from typing import Any

import numpy as np

from moe_jax.data.batch import PAD, Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.row_directory import find_rows
from moe_jax.data.tasks import catalog

# Maximum length of a prompt: words of a plain text, characters of a question.
_MAX_WORDS, _MAX_CHARACTERS = 5, 400


@dataclasses.dataclass(frozen=True)
class ExamplePrompt:
    """An example prompt, as in `run.json`.

    Attributes:
        prompt: text of the kind that the model was trained on.
        is_question: whether an answer follows it; otherwise the text continues.
    """

    prompt: str
    is_question: bool


def has_questions(config: DataConfig) -> bool:
    """Returns whether examples have inputs, which end with the end-of-sequence token."""
    if (rows := find_rows(config)) is not None:
        return rows.facts.is_question
    return any(_is_question(config, name) for name in config.rates)


def _is_question(config: DataConfig, name: str) -> bool:
    if catalog.is_plain_text(name):
        return config.objective == "span_corruption"
    if name in catalog.mixtures() or catalog.full_name(name) in catalog.definitions():
        return True
    import seqio

    from moe_jax.data.sources.curriculum_source import scored_config
    from moe_jax.errors import UserError

    if name.startswith(catalog.CURRICULUM_PREFIX):
        try:
            return has_questions(
                scored_config(name.removeprefix(catalog.CURRICULUM_PREFIX), config)
            )
        except UserError:  # Its scores have been moved.
            return False
    if name not in (*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()):
        return False
    inputs = seqio.get_mixture_or_task(name).output_features.get("inputs")
    return inputs is not None and inputs.add_eos


def has_padding(config: DataConfig) -> bool:
    """Returns whether sequences can have padding, which plain texts do not."""
    return not all(catalog.is_plain_text(name) for name in config.rates)


def encode_prompt(config: DataConfig, vocabulary: Any, prompt: str) -> list[int]:
    """Tokenises a prompt; a question gets the end-of-sequence token, as in training."""
    tokens = list(vocabulary.encode(prompt))
    return [*tokens, vocabulary.eos_id] if tokens and has_questions(config) else tokens


def example_prompt(config: DataConfig, batch: Batch, vocabulary: Any) -> ExamplePrompt:
    """Returns an example prompt of a batch: see `first_prompt`."""
    return ExamplePrompt(first_prompt(config, batch, vocabulary), has_questions(config))


def first_prompt(config: DataConfig, batch: Batch, vocabulary: Any) -> str:
    """Returns the first question of a batch, or the first words of its text.

    Args:
        config: configuration of the data.
        batch: batch of the data, as numpy arrays.
        vocabulary: vocabulary of the data, with a method `decode`.
    """
    targets, weights = np.asarray(batch.targets_BS)[0], np.asarray(batch.weights_BS)[0]
    wanted = targets != PAD
    if batch.segments_BS is not None:
        segments = np.asarray(batch.segments_BS)[0]
        wanted &= segments == segments[0]
    if not has_questions(config):
        text = vocabulary.decode([int(token) for token in targets[wanted]])
        return " ".join(text.split()[:_MAX_WORDS])
    text = vocabulary.decode([int(token) for token in targets[wanted & (weights == 0)]])
    return text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS].rsplit(" ", 1)[0]
