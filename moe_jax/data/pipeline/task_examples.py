"""The examples of a text-to-text task for its evaluation, without TensorFlow.

An example is the tokens of its inputs, its reference and, if the task has them, the texts that it
chooses between. `moe_jax.data.pipeline.task_reader` reads them.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moe_jax import strict_json
from moe_jax.errors import UserError

Tokens = tuple[int, ...]
# Figures by name from (targets, predictions) or (targets, scores), both lists.
MetricFn = Callable[[Sequence[Any], Sequence[Any]], Mapping[str, Any]]


class MissingSplit(UserError):
    """A task has no such split, or nothing in it to score: a mixture goes on without it."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """A text that a model may choose.

    Attributes:
        text: the text.
        tokens: its tokens, with the end-of-sequence token if targets have one.
    """

    text: str
    tokens: Tokens


@dataclasses.dataclass(frozen=True)
class TaskExample:
    """An example of a task.

    Attributes:
        index: its position in the split, from 0.
        inputs: tokens of the inputs, with their end-of-sequence token.
        targets: tokens of the reference, with the end-of-sequence token.
        target_text: text of the reference.
        target: what the metrics compare with: `target_text`, postprocessed.
        choices: the texts that the example chooses between; empty if the answer is generated.
        features: all features of the example, as NumPy has them.
    """

    index: int
    inputs: Tokens
    targets: Tokens
    target_text: str
    target: Any
    choices: tuple[Choice, ...]
    features: Mapping[str, Any]

    @property
    def idx(self) -> Any:
        """The benchmark's own number of the example, nested as in the data; None without one."""
        nested = {
            name.removeprefix("idx/"): _plain(value)
            for name, value in self.features.items()
            if name.startswith("idx/")
        }
        return nested or _plain(self.features.get("idx"))


@dataclasses.dataclass(frozen=True)
class TaskExamples:
    """The examples of one split of a task, and how their predictions are compared.

    Attributes:
        name: name of the task, as it was asked for.
        split: the split.
        examples: its examples, in order.
        postprocess: from (text, features of the example) to the value that metrics compare.
        predict_metrics: metrics of (targets, predictions).
        score_metrics: metrics of (targets, log-likelihoods of the references).
        vocabulary: vocabulary of the targets.
        max_new_tokens: maximum number of tokens of a generated answer.
        notes: lines for the user.
    """

    name: str
    split: str
    examples: tuple[TaskExample, ...]
    postprocess: Callable[[str, Mapping[str, Any]], Any]
    predict_metrics: tuple[MetricFn, ...]
    score_metrics: tuple[MetricFn, ...]
    vocabulary: Any
    max_new_tokens: int
    notes: tuple[str, ...] = ()

    @property
    def has_choices(self) -> bool:
        """Whether examples have texts to choose between; one without any gets an empty answer."""
        return any(example.choices for example in self.examples)

    @property
    def is_generated(self) -> bool:
        """Whether predictions are generated texts."""
        return bool(self.predict_metrics) and not self.has_choices

    def digest(self) -> str:
        """Returns a digest of all tokens, by which processes check that they read the same."""
        tokens = [
            [e.inputs, e.targets, [choice.tokens for choice in e.choices]] for e in self.examples
        ]
        text = strict_json.dumps([self.name, self.split, tokens])
        return hashlib.sha256(text.encode()).hexdigest()


def make_choices(
    task: str, texts: Sequence[str], encode: Callable[[str], Sequence[int]], unknown: int | None
) -> tuple[Choice, ...]:
    """Returns the classes of a task with their tokens.

    Args:
        task: name of the task, for messages.
        texts: texts of the classes.
        encode: from a text to its tokens, without the end-of-sequence token.
        unknown: token of what the vocabulary lacks; None if it lacks nothing.

    Raises:
        UserError: if a class has no tokens or an unknown one, or two have the same.
    """
    choices: dict[Tokens, Choice] = {}
    for text in texts:
        tokens = tuple(int(token) for token in encode(text))
        if not tokens or unknown in tokens:
            lack = "has an unknown token" if tokens else "has no tokens"
            raise UserError(
                f"the class {text!r} of task {task} {lack} in the vocabulary: no model could say "
                "it; use a vocabulary with its letters (Data.vocabulary)"
            )
        if tokens in choices:
            raise UserError(
                f"the classes {choices[tokens].text!r} and {text!r} of task {task} have the same "
                "tokens in the vocabulary: no model could tell them apart"
            )
        choices[tokens] = Choice(text, tokens)
    return tuple(choices.values())


def fit_inputs(inputs: Tokens, room: int) -> Tokens:
    """Returns inputs that fit in `room` tokens.

    Longer ones lose tokens before their last, the end-of-sequence token, as in training
    (`TrimmedPrefixLMFeatureConverter`).
    """
    return inputs if len(inputs) <= room else (*inputs[: room - 1], inputs[-1])


def check_lengths(task: TaskExamples, length: int) -> None:
    """Checks that every text that is scored leaves room for its inputs in a row.

    Args:
        task: the examples.
        length: tokens in a row.

    Raises:
        UserError: naming the longest text, if it does not.
    """
    for example in task.examples:
        longest = max(
            [("its reference", example.targets)] * bool(task.score_metrics)
            + [(f"its choice {choice.text!r:.60}", choice.tokens) for choice in example.choices],
            key=lambda named: len(named[1]),
            default=("", ()),
        )
        if len(longest[1]) >= length:
            raise UserError(
                f"task {task.name}: example {example.index} is longer than a row: {longest[0]} has "
                f"{len(longest[1])} tokens and needs a row of at least {len(longest[1]) + 1}; set "
                f"Data.sequence_length (now {length})"
            )
    if task.is_generated and task.max_new_tokens >= length:
        raise UserError(
            f"task {task.name}: answers of up to {task.max_new_tokens} tokens leave no room for "
            f"inputs in a row of {length}: set a smaller TaskScores.max_new_tokens, or a larger "
            "Data.sequence_length"
        )


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
