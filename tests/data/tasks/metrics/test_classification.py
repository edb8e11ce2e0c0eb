"""Accuracy, F1, Matthews correlation and unparsed predictions, by hand and against scikit-learn."""

import math

import numpy as np
import pytest
import sklearn.metrics

from moe_jax.data.tasks import metrics
from moe_jax.errors import UserError


def random_classes(seed, classes=2, rows=60, unparsed=0.2):
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=rows)
    predictions = np.where(rng.random(rows) < 0.6, targets, rng.integers(classes, size=rows))
    predictions = np.where(rng.random(rows) < unparsed, -1, predictions)
    return targets.tolist(), predictions.tolist()


def test_accuracy_by_hand():
    assert metrics.accuracy([0, 1, 1, 0], [0, 1, 0, -1]) == {"accuracy": 50.0}
    assert metrics.accuracy(["yes", "no"], ["yes", None]) == {"accuracy": 50.0}
    assert metrics.accuracy([0, 1], [float("nan"), None]) == {"accuracy": 0.0}


def test_f1_by_hand_counts_an_unparsed_prediction_as_the_wrong_class():
    # Class 1: right twice; one 0 taken for 1; one 1 unparsed, so taken for 0; one 0 unparsed,
    # so taken for 1. Precision 2/4, recall 2/3.
    targets, predictions = [1, 1, 1, 0, 0, 0], [1, 1, -1, 1, 7, 0]
    expected = 100 * 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3)
    assert metrics.f1_invalid_as_wrong(targets, predictions)["f1"] == pytest.approx(expected)
    values = [[{"value": v} for v in rows] for rows in (targets, predictions)]
    assert metrics.multirc_f1_over_all_answers(*values)["f1"] == pytest.approx(expected)


def test_f1_leaves_its_input_alone():
    predictions = np.array([-1, 1])
    metrics.f1_invalid_as_wrong([0, 1], predictions)
    assert predictions.tolist() == [-1, 1]


def test_f1_of_targets_without_labels_says_so():
    with pytest.raises(UserError, match="f1_invalid_as_wrong: targets are 0 or 1"):
        metrics.f1_invalid_as_wrong([-1, -1], [0, 1])


def test_matthews_by_its_formula():
    targets, predictions = random_classes(1, unparsed=0)
    pairs = list(zip(targets, predictions, strict=True))
    tp, tn, fp, fn = (pairs.count(pair) for pair in ((1, 1), (0, 0), (0, 1), (1, 0)))
    bottom = math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    value = metrics.matthews(targets, predictions)["matthews_corrcoef"]
    assert value == pytest.approx(100 * (tp * tn - fp * fn) / bottom)
    swapped = metrics.matthews(targets, [1 - p for p in predictions])["matthews_corrcoef"]
    assert swapped == pytest.approx(-value)


@pytest.mark.parametrize("seed", range(5))
def test_classes_against_scikit_learn(seed):
    targets, predictions = random_classes(seed, classes=3)
    as_none = [None if p == -1 else p for p in predictions]
    f1 = sklearn.metrics.f1_score(targets, predictions, labels=[0, 1, 2], average="macro")
    mcc = sklearn.metrics.matthews_corrcoef(targets, predictions)
    for guess in (predictions, as_none):
        figures = metrics.mean_multiclass_f1(3)(targets, guess)
        assert figures == {"mean_3class_f1": pytest.approx(100 * f1)}
        assert metrics.matthews(targets, guess)["matthews_corrcoef"] == pytest.approx(100 * mcc)
        share = np.mean(np.equal(targets, predictions))
        assert metrics.accuracy(targets, guess)["accuracy"] == pytest.approx(100 * share)


def test_mean_multiclass_f1_counts_all_classes_and_passes_options_on():
    # F1 of class 0 is 1, and the two classes that do not occur have 0.
    assert metrics.mean_multiclass_f1(3)([0, 0], [0, 0])["mean_3class_f1"] == pytest.approx(100 / 3)
    weighted = metrics.mean_multiclass_f1(2, sample_weight=[1, 0])
    assert weighted([0, 1], [0, 0])["mean_2class_f1"] == pytest.approx(50)


def test_unparsed_counts_what_did_not_parse():
    guesses = [-1, -1.0, None, float("nan"), float("inf"), np.int64(-1), 0, 1, "-1", True]
    assert metrics.unparsed([0] * 10, guesses) == {"unparsed": 60.0}
    assert metrics.unparsed([0, 0], [{"value": -1}, {"value": 1}]) == {"unparsed": 50.0}
