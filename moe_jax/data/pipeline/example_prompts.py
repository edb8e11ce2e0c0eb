"""What a model that was trained on some data can be asked, and whether its rows are full.

It goes by the names of tasks, so that the data themselves need not be there. TensorFlow is imported
when `has_questions` has to know a task, and not by `has_padding`.
"""

import dataclasses
from typing import Any

import numpy as np

from moe_jax.data.batch import PAD, Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.tasks import catalog

# Words of a plain text, and characters of a question, that a prompt is made of.
_WORDS, _CHARACTERS = 5, 400


@dataclasses.dataclass(frozen=True)
class ExamplePrompt:
    """What a model can be asked, as `run.json` has it.

    Attributes:
        prompt: that fits the data.
        is_question: whether an answer follows it; otherwise the text goes on.
    """

    prompt: str
    is_question: bool


def has_questions(config: DataConfig) -> bool:
    """Returns whether rows are questions, which end with the end-of-sequence token, and answers."""
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
        except UserError:  # Its scores are elsewhere by now.
            return False
    if name not in (*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()):
        return False
    inputs = seqio.get_mixture_or_task(name).output_features.get("inputs")
    return inputs is not None and inputs.add_eos


def has_padding(config: DataConfig) -> bool:
    """Returns whether rows can end with padding; those of a plain text are full."""
    return not all(catalog.is_plain_text(name) for name in config.rates)


def encode_prompt(config: DataConfig, vocabulary: Any, prompt: str) -> list[int]:
    """Returns the tokens of a prompt; a question ends with the token that ended it in training."""
    tokens = list(vocabulary.encode(prompt))
    return [*tokens, vocabulary.eos_id] if tokens and has_questions(config) else tokens


def example_prompt(config: DataConfig, batch: Batch, vocabulary: Any) -> ExamplePrompt:
    """Returns what a model of these data can be asked: see `first_prompt`."""
    return ExamplePrompt(first_prompt(config, batch, vocabulary), has_questions(config))


def first_prompt(config: DataConfig, batch: Batch, vocabulary: Any) -> str:
    """Returns the first question of a batch, or the first words of its text.

    Args:
        config: the data.
        batch: of them, as numpy arrays.
        vocabulary: with `decode`.
    """
    targets, weights = np.asarray(batch.targets_BS)[0], np.asarray(batch.weights_BS)[0]
    wanted = targets != PAD
    if batch.segments_BS is not None:
        segments = np.asarray(batch.segments_BS)[0]
        wanted &= segments == segments[0]
    if not has_questions(config):
        text = vocabulary.decode([int(token) for token in targets[wanted]])
        return " ".join(text.split()[:_WORDS])
    text = vocabulary.decode([int(token) for token in targets[wanted & (weights == 0)]])
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS].rsplit(" ", 1)[0]
