"""Postprocessors: from a model's text, or the target's, to the values that metrics compare.

As in T5 (t5 0.9.4) they are called as `f(text, example=example, is_target=bool)`. A text that is no
label becomes -1, which is always wrong.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

UNPARSED = -1

# Words that are ignored when two nouns are compared: "the cat" is "my cat".
DETERMINERS = frozenset(
    [
        *("a", "an", "each", "every", "few", "many", "much", "some", "that", "the", "these"),
        *("this", "those", "which", "whose", "her", "his", "my", "our", "their", "your"),
    ]
)


def string_label_to_class_id(labels: tuple[str, ...]) -> Callable[..., int]:
    """Returns the postprocessor from a label's name to its index; -1 for any other text."""
    numbers = {label: number for number, label in enumerate(labels)}

    def postprocess(text: str, **unused: Any) -> int:
        return numbers.get(text, UNPARSED)

    return postprocess


def string_to_float(text: str, **unused: Any) -> float:
    """Parses a number; -1.0 for any other text.

    As in T5 it may be NaN or infinity, which the metrics count as unparsed.
    """
    try:
        return float(text)
    except ValueError:
        return float(UNPARSED)


def multirc(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> dict[str, Any]:
    """Returns the label's index as `value` and, for a target, its question as `group`."""
    result: dict[str, Any] = {"value": {"False": 0, "True": 1}.get(text, UNPARSED)}
    if is_target and example is not None:
        result["group"] = int(example["idx/question"])
    return result


def record(
    text: str, example: Mapping[str, Any] | None = None, is_target: bool = False
) -> dict[str, Any]:
    """Returns the answer as `value`; for a target, all correct answers and the query as `group`.

    A query has an example for each of its answers: metrics must use the first of a group only.
    """
    if not is_target or example is None:
        return {"value": text}
    return {
        "value": [tf.compat.as_text(answer) for answer in example["answers"]],
        "group": (int(example["idx/passage"]), int(example["idx/query"])),
    }


def wsc_simple(text: str, example: Mapping[str, Any] | None = None, is_target: bool = False) -> int:
    """Returns 1 if the text names the noun of the example, 0 if not, -1 if it is empty.

    For a target it is the label: 1 if that noun is the referent. Two nouns are the same if
    the words of one, without case and determiners, are among those of the other, and either
    both or neither have an apostrophe ("Bob" is not "Bob's hat").
    """
    if example is None:
        raise ValueError("the postprocessor of WSC needs the example")
    if is_target:
        return int(example["label"])
    predicted, noun = _normalize(text), _normalize(example["targets_pretokenized"])
    if not predicted:
        return UNPARSED
    if ("'" in predicted) != ("'" in noun):
        return 0
    words, noun_words = set(predicted.split(" ")), set(noun.split(" "))
    return int(words <= noun_words or noun_words <= words)


def _normalize(text: str | bytes) -> str:
    """Returns the text in lower case without determiners."""
    words = tf.compat.as_text(text).strip().lower().split(" ")
    return " ".join(word for word in words if word not in DETERMINERS)
