"""Pearson's and Spearman's correlation, by hand and against SciPy."""

import warnings

import numpy as np
import pytest
import scipy.stats

from moe_jax.data.tasks import metrics


@pytest.mark.parametrize("seed", range(5))
def test_correlations_against_scipy(seed):
    rng = np.random.default_rng(seed)
    targets, noise = rng.uniform(0, 5, 50), rng.normal(size=50)
    predictions = targets + noise
    predictions[:3] = -1.0
    unparsed = [None, float("nan"), float("inf"), *predictions[3:]]
    pearson = scipy.stats.pearsonr(targets, predictions).statistic
    spearman = scipy.stats.spearmanr(targets, predictions).statistic
    for guess in (predictions, unparsed):
        assert metrics.pearson(targets, guess)["pearson_corrcoef"] == pytest.approx(100 * pearson)
        value = metrics.spearman(targets, guess)["spearman_corrcoef"]
        assert value == pytest.approx(100 * spearman)


def test_pearson_sees_lines_and_spearman_sees_order():
    targets = [0.0, 1.0, 2.0, 4.0]
    line, curve = [3 - 2 * t for t in targets], [t**3 for t in targets]
    assert metrics.pearson(targets, line)["pearson_corrcoef"] == pytest.approx(-100)
    assert metrics.spearman(targets, curve)["spearman_corrcoef"] == pytest.approx(100)
    assert metrics.pearson(targets, curve)["pearson_corrcoef"] < 99


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman, metrics.matthews])
@pytest.mark.parametrize("targets", [[1, 2, 3], [2, 2, 2]])
@pytest.mark.parametrize("predictions", [[-1, -1, -1], [2, 2, 2], [None, None, None]])
def test_constant_input_gives_zero_without_warnings(metric, targets, predictions):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(metric(targets, predictions).values()) == [0.0]


def test_correlation_of_one_row_is_zero():
    assert metrics.pearson([1.0], [2.0]) == {"pearson_corrcoef": 0.0}
    assert metrics.spearman([1.0], [2.0]) == {"spearman_corrcoef": 0.0}
