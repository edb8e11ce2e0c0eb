"""Student's t-intervals for means, differences and ratios over seeds, and Holm's correction.

With three to eight seeds, percentiles of a bootstrap cover far less than they say, because the
resamples of so few values are too narrow. The t-interval accounts for the number of seeds.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from moe_jax.compare.results import Estimate

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean with the uncertainty of its estimation.

    Attributes:
        value: the mean.
        variance: squared standard error of the mean; None if it is unknown.
        degrees: degrees of freedom of `variance`.
    """

    value: float
    variance: float | None
    degrees: float

    def __add__(self, other: "Mean") -> "Mean":
        """Returns the sum of two independent means.

        Variances add, and the degrees of freedom are (v1 + v2)^2 / (v1^2 / d1 + v2^2 / d2).
        Source: Satterthwaite 1946; Welch 1947.
        """
        value = self.value + other.value
        if self.variance is None or other.variance is None:
            return Mean(value, None, 0)
        variance = self.variance + other.variance
        if variance == 0:
            return Mean(value, 0.0, min(self.degrees, other.degrees))
        shares = (
            (self.variance / variance, self.degrees),
            (other.variance / variance, other.degrees),
        )
        return Mean(value, variance, 1 / sum(share**2 / degrees for share, degrees in shares))

    def interval(self) -> tuple[float | None, float | None]:
        """Returns both ends of the t-interval; None if the variance is unknown."""
        if self.variance is None:
            return None, None
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.degrees) * math.sqrt(self.variance)
        return self.value - float(half), self.value + float(half)

    def p(self) -> float | None:
        """Returns the two-sided p-value of a true mean of 0; None if the variance is unknown."""
        if self.variance is None:
            return None
        if self.variance == 0:
            return 1.0 if self.value == 0 else 0.0
        t = abs(self.value) / math.sqrt(self.variance)
        return float(2 * stats.t.sf(t, self.degrees))


def mean_of(values: Sequence[float]) -> Mean:
    """Returns the mean of independent values; its variance is unknown for a single one.

    Raises:
        ValueError: without values.
    """
    if len(values) == 0:
        raise ValueError("the mean of no values")
    if len(values) == 1:
        return Mean(float(values[0]), None, 0)
    variance = float(np.var(values, ddof=1)) / len(values)
    return Mean(float(np.mean(values)), variance, len(values) - 1)


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the mean of one value per seed with its interval, and no p-value."""
    mean = mean_of(values)
    return Estimate(mean.value, *mean.interval(), seeds=len(values))


def difference(values: Sequence[float]) -> Estimate:
    """Returns the mean of paired differences, one per seed, with the p-value of no difference."""
    return dataclasses.replace(estimate(values), p=mean_of(values).p())


def ratio(ratios: Sequence[float], factor: Mean | None = None) -> Estimate:
    """Returns the geometric mean of ratios, with the p-value of a true ratio of 1.

    The interval is that of the mean of the logarithms, which makes it the same for a ratio and its
    inverse.

    Args:
        ratios: one positive value per pair.
        factor: the logarithm of a factor on all ratios, estimated apart from them; its uncertainty
            widens the interval.
    """
    mean = mean_of(np.log(ratios).tolist())
    if factor is not None:
        mean = mean + factor
    low, high = mean.interval()
    ends = [None if end is None else math.exp(min(end, 700.0)) for end in (low, high)]
    return Estimate(math.exp(mean.value), ends[0], ends[1], len(ratios), mean.p())


def geometric_mean(values: Sequence[float]) -> Estimate:
    """Returns the geometric mean of positive values, one per seed, and no p-value."""
    return dataclasses.replace(ratio(values), p=None)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values corrected for the number of comparisons, in the order given.

    The i-th smallest of n is multiplied by n - i + 1 (i from 1), made non-decreasing, and limited
    to 1. Calling those below 0.05 a difference errs once or more in at most 5% of studies.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
