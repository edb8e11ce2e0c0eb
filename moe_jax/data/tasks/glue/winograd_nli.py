"""WNLI as a Winograd schema: the target is the noun by which the hypothesis replaces the pronoun.

A hypothesis of WNLI is a part of its premise in which a pronoun is replaced by a noun: "Nora
thanked Ruth because she had brought bread." and "Ruth had brought bread." become the input `wsc:
Nora thanked Ruth because *she* had brought bread.` and the target `Ruth`, as in T5 (t5 0.9.4), so
that a model trained on WSC and DPR can be evaluated on WNLI.

The pronoun and the noun are found in Python, and an iterator over such examples cannot be saved.
None has to be: the task has no training split.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from moe_jax.data.tasks.glue.text_formats import TEXT, Example, TextFormat

PRONOUNS = frozenset(["he", "she", "they", "it", "her", "his", "their", "them", "him"])
ARTICLES = ("a", "an", "the")
_PUNCTUATION = (".", ",", "?", "!")


def winograd_nli() -> TextFormat:
    """Returns the format of `glue_wnli_v002_simple_eval`."""

    def convert(example: Example) -> dict[str, tf.Tensor]:
        given = (example["sentence1"], example["sentence2"])
        inputs, targets, problem = tf.numpy_function(_schema_of_bytes, given, [tf.string] * 3)
        tf.debugging.Assert(problem == "", [problem, *given])
        return {name: tf.reshape(t, []) for name, t in (("inputs", inputs), ("targets", targets))}

    features = {"sentence1": TEXT, "sentence2": TEXT}
    return TextFormat(
        features,
        convert,
        metric_features=lambda example: {"label": example["label"]},
        read_by_metrics=("label",),
    )


def _schema_of_bytes(*sentences: Any) -> tuple[bytes, bytes, bytes]:
    """Returns input, target and the reason why the example is invalid, or an empty text."""
    # In eager mode TensorFlow passes arrays of bytes instead of bytes.
    premise, hypothesis = (tf.compat.as_text(np.asarray(text).item()) for text in sentences)
    try:
        inputs, targets = schema(premise, hypothesis)
    except ValueError as error:
        return b"", b"", str(error).encode()
    return inputs.encode(), targets.encode(), b""


def schema(premise: str, hypothesis: str) -> tuple[str, str]:
    """Returns the premise with the pronoun in asterisks, and the noun that replaces it.

    Raises:
        ValueError: if the premise has no pronoun, or the hypothesis does not contain the noun.
    """
    words, hypothesis_words = _words(premise), _words(hypothesis)
    places = [index for index, word in enumerate(words) if word in PRONOUNS]
    if not places:
        raise ValueError("the premise has no pronoun:")
    matches = {
        index: _match(words[:index], words[index + 1 :], hypothesis_words) for index in places
    }
    # The first of equal matches.
    index = max(places, key=lambda place: sum(map(len, matches[place])))
    noun = _as_written(_noun(*matches[index], hypothesis_words), hypothesis)
    return f"wsc: {_marked(premise, index)}", noun


def _words(text: str) -> list[str]:
    """Returns the words in lower case, without a punctuation mark at their end."""
    words = [re.sub(r"[.,?!]$", "", word) for word in text.strip().lower().split(" ")]
    return [word for word in words if word]


def _match(
    before: Sequence[str], after: Sequence[str], hypothesis_words: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns the longest runs of words directly before and after that the hypothesis has too."""
    left = _common(before[::-1], hypothesis_words[::-1])
    return list(before[len(before) - left :]), list(after[: _common(after, hypothesis_words)])


def _common(words: Sequence[str], hypothesis_words: Sequence[str]) -> int:
    """Returns how many of the first words occur in the hypothesis, one after the other."""
    text = " ".join(hypothesis_words)
    count = 0
    while count < len(words) and " ".join(words[: count + 1]) in text:
        count += 1
    return count


def _noun(before: list[str], after: list[str], hypothesis_words: Sequence[str]) -> str:
    """Returns the words of the hypothesis between the two runs; empty if there are no runs."""
    if not before and not after:
        return ""
    left, right = (re.escape(" ".join(words)) for words in (before, after))
    left, right = left and f"{left} ", right and f" {right}"
    # The noun may also be the beginning or the end of the hypothesis.
    for pattern in (f"{left}(.+){right}", f"^(.+){right}", f"{left}(.+)$"):
        if found := re.search(pattern, " ".join(hypothesis_words)):
            words = found[1].split(" ")
            articles = [words.index(article) for article in ARTICLES if article in words]
            return " ".join(words[max(articles, default=0) :])
    return ""


def _as_written(noun: str, hypothesis: str) -> str:
    """Returns the noun with the capitals of the hypothesis, without a possessive ending."""
    pattern = " ".join(re.escape(word) + "[.,?!]?" for word in noun.split(" "))
    found = re.search(pattern, hypothesis, re.IGNORECASE)
    if found is None:
        raise ValueError("the noun cannot be found again in the hypothesis:")
    text = found[0][:-1] if found[0].endswith(_PUNCTUATION) else found[0]
    return text[:-1] if text.endswith("'") else text.removesuffix("'s")


def _marked(premise: str, index: int) -> str:
    """Returns the premise with its word number `index` in asterisks, punctuation separated."""
    words = premise.split(" ")
    # Empty words and lone punctuation marks have no number.
    places = [place for place, word in enumerate(words) if _words(word)]
    word = words[places[index]]
    end = word[-1] if word.endswith(_PUNCTUATION) else ""
    words[places[index]] = f"*{word.removesuffix(end)}* {end}" if end else f"*{word}*"
    return " ".join(words)
