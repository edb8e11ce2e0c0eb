"""Exact match and F1 of answers: SQuAD 1.1, ReCoRD and MultiRC."""

import collections
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.data.tasks.metrics.checks import checked
from moe_jax.errors import UserError

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text: str) -> str:
    """Returns `text` in lower case without (ASCII) punctuation, articles and extra spaces.

    `normalize_answer` of the official SQuAD 1.1 evaluation script (Rajpurkar et al. 2016).
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def token_f1(target: str, prediction: str) -> float:
    """Returns the F1 of the words of two normalised answers, counted with repetitions.

    `f1_score` of the same script: with c words in common, precision is c / words predicted,
    recall is c / words expected, and F1 is their harmonic mean; 0 without a common word.
    """
    expected, predicted = target.split(), prediction.split()
    common = (collections.Counter(expected) & collections.Counter(predicted)).total()
    if not common:
        return 0.0
    precision, recall = common / len(predicted), common / len(expected)
    return 2 * precision * recall / (precision + recall)


def answer_scores(
    name: str, targets: Sequence[Sequence[str]], predictions: Sequence[str | None]
) -> dict[str, float]:
    """Returns `em` and `f1`, each the mean over questions of the best over correct answers.

    Args:
        name: the metric, for messages.
        targets: the correct answers of each question.
        predictions: one answer for each question; None is the empty answer.
    """
    exact, f1 = [], []
    for answers, prediction in zip(targets, predictions, strict=True):
        if not len(answers):
            raise UserError(
                f"metric {name}: a question has no answers; is this a split whose answers are "
                "not published?"
            )
        if isinstance(answers, str):
            raise UserError(f"metric {name}: targets are lists of answers, not one text")
        predicted = normalize_answer(prediction or "")
        expected = [normalize_answer(answer) for answer in answers]
        exact.append(predicted in expected)
        f1.append(max(token_f1(answer, predicted) for answer in expected))
    return {"em": 100 * float(np.mean(exact)), "f1": 100 * float(np.mean(f1))}


@checked
def squad(
    targets: Sequence[Sequence[str]], predictions: Sequence[str | None]
) -> Mapping[str, float]:
    """Returns exact match and F1 of SQuAD 1.1, the best over a question's answers.

    T5's `squad`, which equals the official evaluation script: see `normalize_answer` and
    `token_f1`.

    Args:
        targets: the correct answers of each question.
        predictions: one answer for each question.
    """
    return answer_scores("squad", targets, predictions)


@checked
def record_em_f1(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, float]:
    """Returns ReCoRD's exact match and F1, each query counted once.

    T5's `deduplicate_metric(squad)`: the text-to-text form has one example for each correct answer
    of a query, all with the same input, and only the first of a group counts.

    Args:
        targets: {"value": the query's correct answers, "group": identifier of the query}.
        predictions: {"value": an answer}.
    """
    first: dict[Any, tuple[Any, Any]] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        first.setdefault(target["group"], (target["value"], prediction["value"]))
    expected, predicted = zip(*first.values(), strict=True)
    return answer_scores("record_em_f1", expected, predicted)


@checked
def multirc_exact_match(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, float]:
    """Returns the percentage of questions all of whose answers were classified correctly.

    SuperGLUE's exact match for MultiRC, T5's `mean_group_metric(all_match)`.

    Args:
        targets: {"value": 0 or 1, "group": identifier of the question} for each answer.
        predictions: {"value": 0, 1 or -1} for each answer.
    """
    right: dict[Any, bool] = {}
    for target, prediction in zip(targets, predictions, strict=True):
        equal = bool(target["value"] == prediction["value"])
        right[target["group"]] = right.get(target["group"], True) and equal
    return {"exact_match": 100 * float(np.mean(list(right.values())))}
