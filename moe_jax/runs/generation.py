"""Text generation with a trained model."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from moe_jax.data.pipeline.batch_source import vocabulary_for
from moe_jax.data.pipeline.example_prompts import ExamplePrompt, encode_prompt, has_questions
from moe_jax.errors import UserError
from moe_jax.evaluation.generate import Generated, Generator
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.experiments import Experiment
from moe_jax.models.functional import Variables
from moe_jax.runs.loading import TrainedModel
from moe_jax.runs.text_stream import stream_text
from moe_jax.sharding.partition import Partition
from moe_jax.sharding.processes import is_main

# The sample after training needs the whole model on one device; larger models skip it on a mesh.
_MAX_SAMPLE_BYTES = 2 << 30
# Prompts decoded at a time, unless another number is given.
BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True)
class GeneratedText:
    """A generated text, as in the files of `moe-jax generate --output`.

    Attributes:
        prompt_index: index of its prompt, from 0.
        sample_index: index among the texts of the prompt, from 0; with beams the best is first.
        prompt: the prompt.
        text: the text after the prompt.
        tokens: number of generated tokens, without the end token.
        ended: whether the model ended it; otherwise it was cut at `Sampling.max_new_tokens`.
        score: of beam search, log p over the length penalty; None without beams.
    """

    prompt_index: int
    sample_index: int
    prompt: str
    text: str
    tokens: int
    ended: bool
    score: float | None


class TextGenerator:
    """Generates text with a trained model, with causal routing.

    Args:
        trained: the model, on a single device or on a mesh. On a mesh of several processes, all
            must make the same calls.
        sampling: settings of sampling; None for those of the run.

    Raises:
        UserError: if the vocabulary cannot be read.

    Attributes:
        answers_questions: true if the model was trained on questions and answers.
        can_stream: whether `stream` can be called; beam search knows no token before the end.
    """

    def __init__(self, trained: TrainedModel, sampling: SamplingConfig | None = None):
        experiment = trained.run.experiment
        self._data, self._variables = experiment.data, trained.variables
        self._sampling = sampling or experiment.sampling
        self._vocabulary = vocabulary_for(experiment.data)
        self._generator = Generator(trained.model, self._sampling, self._vocabulary.eos_id)
        self.answers_questions = has_questions(experiment.data)
        self.can_stream = self._sampling.beams == 1

    def __call__(self, prompt: str, samples: int = 1) -> Iterator[str]:
        """Yields continuations of a prompt, each sampled with a different seed."""
        for index in range(samples):
            yield self.generate(prompt, self._sampling.seed + index)

    def generate(self, prompt: str, seed: int) -> str:
        """Returns a continuation of a prompt."""
        return self._decode(self._generator(self._variables, self._encode(prompt), seed))

    def stream(self, prompt: str) -> Iterator[str]:
        """Yields pieces of the first text of `texts`, as they are made; not with beams."""
        tokens = self._generator.stream(self._variables, self._encode(prompt))
        return stream_text(self._decode, tokens)

    def texts(
        self,
        prompts: Sequence[str],
        samples: int = 1,
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int, int], None] | None = None,
        seed: int | None = None,
    ) -> list[GeneratedText]:
        """Generates texts after each prompt, in the order of the prompts.

        A text depends on its prompt, its sample index and the settings only: neither on the other
        prompts nor on the batch size. Sample i of every prompt has the given seed + i.

        Args:
            prompts: the prompts.
            samples: number of texts for each prompt; with beams, the best ones.
            batch_size: number of rows to decode at a time (with beams, of prompts).
            progress: called with the number of texts done and of all texts.
            seed: seed of the first sample; None for `Sampling.seed`.

        Raises:
            UserError: for a prompt without room in a row, and for more samples than beams.
        """
        rows, seed = self._rows(prompts, samples), self._sampling.seed if seed is None else seed
        total, found = len(prompts) * samples, {}
        # Rows of similar length together: less padding, and fewer compiled lengths.
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][2]))
        for first in range(0, len(order), batch_size):
            of_batch = [rows[index] for index in order[first : first + batch_size]]
            for (prompt, sample, _), texts in zip(
                of_batch, self._batch(of_batch, seed), strict=True
            ):
                for index, text in enumerate(texts[:samples]):
                    found[prompt, sample + index] = text
            if progress is not None:
                progress(len(found), total)
        return [
            self._text(prompts[prompt], prompt, sample, text)
            for (prompt, sample), text in sorted(found.items())
        ]

    def _rows(self, prompts: Sequence[str], samples: int) -> list[tuple[int, int, list[int]]]:
        """Returns the index of the prompt, the first sample and the tokens of every row."""
        beams = self._sampling.beams
        if 1 < beams < samples:
            raise UserError(f"Sampling.beams = {beams} finds {beams} texts, not {samples} samples")
        numbered = enumerate(prompts)
        encoded = [self._encode(prompt, f"prompt {n + 1}") for n, prompt in numbered]
        if beams > 1:
            return [(index, 0, tokens) for index, tokens in enumerate(encoded)]
        return [(i, s, tokens) for i, tokens in enumerate(encoded) for s in range(samples)]

    def _batch(
        self, rows: Sequence[tuple[int, int, list[int]]], seed: int
    ) -> list[list[Generated]]:
        prompts = [tokens for _, _, tokens in rows]
        if self._sampling.beams > 1:
            return self._generator.beams(self._variables, prompts)
        seeds = [seed + sample for _, sample, _ in rows]
        return [[text] for text in self._generator.texts(self._variables, prompts, seeds)]

    def _text(self, prompt: str, index: int, sample: int, text: Generated) -> GeneratedText:
        decoded = self._decode(text.tokens)
        count = len(text.tokens)
        return GeneratedText(index, sample, prompt, decoded, count, text.ended, text.score)

    def _encode(self, prompt: str, name: str = "the prompt") -> list[int]:
        tokens = encode_prompt(self._data, self._vocabulary, prompt)
        if len(tokens) >= (length := self._data.sequence_length):
            raise UserError(
                f"{name} has {len(tokens)} tokens, and the model was trained on rows of "
                f"Data.sequence_length = {length}, which leaves no room for a text: shorten it"
            )
        return tokens

    def _decode(self, tokens: list[int]) -> str:
        return str(self._vocabulary.decode(tokens))


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
