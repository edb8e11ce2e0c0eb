"""Correlations of numbers, STS-B's metrics. The formulas are SciPy's."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.data.tasks.metrics.checks import UNPARSED, checked, is_unparsed


@checked
def pearson(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns 100 x the Pearson correlation (`scipy.stats.pearsonr`), T5's `pearson_corrcoef`.

    A prediction that is no finite number counts as -1, as T5's `string_to_float` has it. Where
    the correlation is not defined (all targets or all predictions equal, or fewer than two rows)
    it is 0; T5's would be NaN.

    Args:
        targets: numbers.
        predictions: numbers; -1, None, NaN and infinities did not parse.
    """
    from scipy.stats import pearsonr

    return {"pearson_corrcoef": _percent(pearsonr, targets, predictions)}


@checked
def spearman(targets: Sequence[Any], predictions: Sequence[Any]) -> Mapping[str, float]:
    """Returns 100 x Spearman's rank correlation (`scipy.stats.spearmanr`).

    T5's `spearman_corrcoef`, with the rules of `pearson` for unparsed predictions and undefined
    correlations.

    Args:
        targets: numbers.
        predictions: numbers; -1, None, NaN and infinities did not parse.
    """
    from scipy.stats import spearmanr

    return {"spearman_corrcoef": _percent(spearmanr, targets, predictions)}


def _percent(correlation: Any, targets: Sequence[Any], predictions: Sequence[Any]) -> float:
    """Returns 100 x SciPy's `correlation`, or 0 where it is not defined."""
    if len(targets) < 2:
        return 0.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # SciPy warns of constant input and of overflows; both give NaN, handled here.
        warnings.simplefilter("ignore")
        value = float(correlation(_numbers(targets), _numbers(predictions))[0])
    return 100 * value if np.isfinite(value) else 0.0


def _numbers(values: Sequence[Any]) -> np.ndarray:
    return np.asarray([UNPARSED if is_unparsed(value) else value for value in values], np.float64)
