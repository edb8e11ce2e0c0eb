"""Student's t-intervals for means, differences and ratios over seeds, and Holm's correction.

With three to eight seeds, percentiles of a bootstrap cover far less than they say, because the
resamples of so few values are too narrow. The t-interval accounts for the number of seeds.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from moe_jax.compare.results import Estimate

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class StandardError:
    """The standard error of a mean that was estimated from data.

    Attributes:
        value: the standard error.
        degrees: its degrees of freedom.
    """

    value: float
    degrees: float


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean with the uncertainty of its estimation.

    Attributes:
        value: the mean, or a sum of independent means.
        errors: the standard error of each summand that is not exact; None if one is unknown.
    """

    value: float
    errors: tuple[StandardError, ...] | None

    def __add__(self, other: "Mean") -> "Mean":
        """Returns the sum of two independent means."""
        value = self.value + other.value
        if self.errors is None or other.errors is None:
            return Mean(value, None)
        return Mean(value, self.errors + other.errors)

    def interval(self) -> tuple[float | None, float | None]:
        """Returns both ends of the interval; None if the uncertainty is unknown.

        The half-width of a sum is the root of the sum of squares of the half-widths of its
        summands' t-intervals, so that it is never narrower than one of them. With the degrees of
        freedom of Welch and Satterthwaite it can be, where a summand has few seeds and the other
        many. Sources: Howe 1974, Approximate confidence limits on the mean of X + Y; Zou and
        Donner 2008, Construction of confidence limits about effect measures.
        """
        if self.errors is None:
            return None, None
        half = self._half_width((1 - CONFIDENCE) / 2)
        return self.value - half, self.value + half

    def p(self) -> float | None:
        """Returns the two-sided p-value of a true mean of 0; None if the uncertainty is unknown.

        It is 1 minus the confidence at which the interval ends at 0.
        """
        if self.errors is None:
            return None
        distance = abs(self.value)
        errors = [error for error in self.errors if error.value > 0]
        if distance == 0 or not errors:
            return 1.0 if distance == 0 else 0.0
        if len(errors) == 1:
            return float(2 * stats.t.sf(distance / errors[0].value, errors[0].degrees))
        # Of the logarithm of the probability beyond each end.
        most, least = math.log(0.5), math.log(1e-300)
        if self._half_width(math.exp(least)) <= distance:
            return 0.0
        found = optimize.brentq(lambda x: self._half_width(math.exp(x)) - distance, least, most)
        return 2 * math.exp(found)

    def _half_width(self, beyond: float) -> float:
        """Returns half the width of the interval that has a probability beyond each end."""
        halves = [
            float(stats.t.isf(beyond, error.degrees)) * error.value for error in self.errors or ()
        ]
        return math.hypot(*halves)


def mean_of(values: Sequence[float]) -> Mean:
    """Returns the mean of independent values; its uncertainty is unknown for a single one.

    Raises:
        ValueError: without values.
    """
    if len(values) == 0:
        raise ValueError("the mean of no values")
    if len(values) == 1:
        return Mean(float(values[0]), None)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Mean(float(np.mean(values)), (StandardError(error, len(values) - 1),))


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
    return exponential(mean, len(ratios))


def exponential(mean: Mean, count: int) -> Estimate:
    """Returns the exponential of a mean of `count` logarithms, and the p-value of a true 1."""
    low, high = mean.interval()
    ends = [None if end is None else math.exp(min(end, 700.0)) for end in (low, high)]
    return Estimate(math.exp(mean.value), ends[0], ends[1], count, mean.p())


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
