"""Metrics of classes: accuracy, F1, Matthews correlation. The formulas are scikit-learn's."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.data.tasks.metrics.checks import UNPARSED, checked, classes
from moe_jax.errors import UserError


@checked
def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns the share of predictions equal to their targets (`sklearn.metrics.accuracy_score`).

    T5's `accuracy`. Unparsed values are one more class, -1.

    Args:
        targets: classes, as numbers or as strings.
        predictions: as the targets; -1, None and NaN did not parse.
    """
    from sklearn.metrics import accuracy_score

    # Numbers for the targets' values, because scikit-learn refuses None among strings.
    number = {value: index for index, value in enumerate(dict.fromkeys(classes(targets)))}
    predicted = [number.get(value, UNPARSED) for value in classes(predictions)]
    share = accuracy_score([number[value] for value in classes(targets)], predicted)
    return {"accuracy": 100 * share}


def _binary_f1(name: str, targets: Sequence[Any], predictions: Sequence[Any]) -> float:
    from sklearn.metrics import f1_score

    truth = np.asarray(classes(targets))
    if not np.isin(truth, (0, 1)).all():
        raise UserError(f"metric {name}: targets are 0 or 1, not {sorted(set(truth.tolist()))}")
    predicted = np.asarray(classes(predictions))
    wrong = np.where(np.isin(predicted, (0, 1)), predicted, 1 - truth)
    return 100 * f1_score(truth, wrong, zero_division=0.0)


@checked
def f1_invalid_as_wrong(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns the F1 of class 1, any prediction but 0 and 1 counting as the wrong class.

    T5's `f1_score_with_invalid`: `sklearn.metrics.f1_score` after each invalid prediction was
    replaced by 1 - target. 0 if class 1 is neither expected nor predicted.

    Args:
        targets: 0 or 1.
        predictions: 0, 1, or anything for a text that did not parse.
    """
    return {"f1": _binary_f1("f1_invalid_as_wrong", targets, predictions)}


@checked
def multirc_f1_over_all_answers(
    targets: Sequence[Mapping[str, Any]], predictions: Sequence[Mapping[str, Any]]
) -> Mapping[str, float]:
    """Returns the F1 over all answers of all questions: SuperGLUE's F1a for MultiRC.

    T5's `multirc_f1_over_all_answers`, which is `f1_invalid_as_wrong` of the values.

    Args:
        targets: {"value": 0 or 1, ...} for each answer.
        predictions: {"value": 0, 1 or -1} for each answer.
    """
    values = ([row["value"] for row in rows] for rows in (targets, predictions))
    return {"f1": _binary_f1("multirc_f1_over_all_answers", *values)}


@checked
def matthews(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns 100 x Matthews' correlation (`sklearn.metrics.matthews_corrcoef`), CoLA's metric.

    As in T5, unparsed predictions are a class of their own, so with them this is the
    correlation of several classes (Gorodkin 2004, the R_K statistic). 0 if all targets or all
    predictions are of one class.

    Args:
        targets: class numbers.
        predictions: class numbers; -1, None and NaN did not parse.
    """
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        # Of a single class on both sides, for which the value is 0.
        warnings.simplefilter("ignore", UserWarning)
        value = matthews_corrcoef(classes(targets), classes(predictions))
    return {"matthews_corrcoef": 100 * value}


def mean_multiclass_f1(
    num_classes: int, **sklearn_options: Any
) -> Callable[[Sequence[Any], Sequence[Any]], dict[str, float]]:
    """Returns a metric: the unweighted mean over classes of each class's F1, CB's metric.

    T5's `mean_multiclass_f1`: `sklearn.metrics.fbeta_score` with beta 1 and macro average. A
    prediction that did not parse is of none of the classes. A class that is neither expected nor
    predicted has an F1 of 0.

    Args:
        num_classes: the classes are 0 to num_classes - 1.
        **sklearn_options: of `fbeta_score`, such as `sample_weight`.
    """

    @checked
    def mean_f1(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
        from sklearn.metrics import fbeta_score

        options = {"zero_division": 0.0, **sklearn_options}
        score = fbeta_score(
            classes(targets),
            classes(predictions),
            beta=1,
            labels=list(range(num_classes)),
            average="macro",
            **options,
        )
        return {f"mean_{num_classes}class_f1": 100 * score}

    return mean_f1
