"""Smoothing of a curve of held-out losses, and the step at which it reaches a loss.

Two stages, both functions of the logarithm of the step, in which curves of losses are close to
straight lines:

1. Local quadratic regression with tricube weights over the nearest evaluations (Cleveland 1979),
   which averages the noise of single evaluations.
2. Isotonic regression (Barlow et al. 1972), which makes the curve non-increasing, so that it
   reaches every loss once.

The final loss is that of the first stage. Isotonic regression averages an end that noise has raised
with the losses before it, and leaves one that noise has lowered: it is too low on average, and
speed-ups came out 3 to 5% too near 1 where evaluations are noisy (scripts/coverage.py).

No evaluation of a warm-up is left out: the regression is local, and a loss that arms are compared
at lies far from it.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize

# Share of the evaluations that a local regression uses. Runs differ more from seed to seed than an
# evaluation is noisy, so that a larger share gains little; and it flattens the fall of the loss at
# the end of a decaying learning rate: speed-ups of 1.2 were found too low by 1 to 3% with 0.6
# (scripts/coverage.py).
NEIGHBOURS = 0.35
# The least number of them, where there are as many: twice what a parabola needs.
_LEAST = 6
# The least number for a parabola.
_QUADRATIC = 5
# A rise at the end is more than noise above this multiple of the noise, and above these nats.
_RISE_IN_NOISE = 4.0
_RISE_IN_NATS = 0.005


@dataclasses.dataclass(frozen=True, eq=False)
class SmoothCurve:
    """A smoothed curve of K losses.

    Attributes:
        log_steps: natural logarithms of the steps, [K], increasing.
        loss: smoothed losses, [K], non-increasing.
        final: loss of the first stage at the last evaluation.
        rise: how much `final` is above the lowest loss of the first stage: from overfitting, or
            from noise.
        noise: standard deviation of an evaluation; 0 if there are too few to tell.
    """

    log_steps: np.ndarray
    loss: np.ndarray
    final: float
    rise: float
    noise: float

    @property
    def first(self) -> float:
        """The smoothed loss at the first evaluation."""
        return float(self.loss[0])

    @property
    def rises(self) -> bool:
        """True if the loss rises at the end by more than noise explains."""
        return self.rise > max(_RISE_IN_NOISE * self.noise, _RISE_IN_NATS)

    def step_at(self, loss: float) -> float | None:
        """Returns the step at which the curve reaches a loss, interpolated in its logarithm.

        Where the curve is level, isotonic regression has replaced several losses by their mean; it
        counts as reached at the mean of their logarithmic steps. Taking the first of them instead
        would be too early on average. The final loss is reached at the last step, or earlier if
        the curve rises at the end.

        Returns:
            The step; None for losses below the final one. A loss that is reached before the first
            evaluation gives the step of this one, which is an upper bound: see `is_censored`.
        """
        if not self.final <= loss:
            return None
        if self._is_the_end(loss):
            return math.exp(self.log_steps[-1])
        if loss > self.first:
            return math.exp(self.log_steps[0])
        levels, middles = self._levels
        return math.exp(np.interp(loss, levels, middles))

    def is_censored(self, loss: float) -> bool:
        """Returns True if the loss is reached before the first evaluation, at an unknown step."""
        return loss > self.first and not self._is_the_end(loss)

    def _is_the_end(self, loss: float) -> bool:
        return loss == self.final and not self.rises

    def loss_at(self, steps: np.ndarray) -> np.ndarray:
        """Returns the losses at steps, interpolated in their logarithm; level beyond both ends."""
        return np.interp(np.log(steps), self.log_steps, self.loss)

    @functools.cached_property
    def _levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the distinct losses, increasing, and the mean logarithmic step of each."""
        starts = np.concatenate([[0], np.flatnonzero(np.diff(self.loss)) + 1])
        counts = np.diff(np.append(starts, len(self.loss)))
        middles = np.add.reduceat(self.log_steps, starts) / counts
        return self.loss[starts][::-1], middles[::-1]


def smooth(steps: Sequence[int], losses: Sequence[float]) -> SmoothCurve:
    """Returns the smoothed curve of evaluations.

    With three or four evaluations the local regression is linear; fewer are taken as they are.
    Evaluations before the first training step or with a loss that is not finite are left out.

    Args:
        steps: steps of the evaluations, increasing.
        losses: one loss per step.

    Raises:
        ValueError: if no evaluation is left.
    """
    y = np.asarray(losses, float)
    x = np.asarray(steps, float)
    usable = (x > 0) & np.isfinite(y)
    if not usable.any():
        raise ValueError("no evaluation after a training step has a finite loss")
    x, y = np.log(x[usable]), y[usable]
    matrix = _smoothing_matrix(tuple(x.tolist()))
    local = matrix @ y
    # The expectation of the squared residuals is the variance times the trace of (1 - H)'(1 - H).
    residual = np.eye(len(x)) - matrix
    degrees = float((residual**2).sum())
    noise = math.sqrt(float(((y - local) ** 2).sum()) / degrees) if degrees > 1e-9 else 0.0
    isotonic = optimize.isotonic_regression(local, increasing=False).x
    return SmoothCurve(
        log_steps=x,
        loss=isotonic,
        final=float(local[-1]),
        rise=float(local[-1] - local.min()),
        noise=noise,
    )


@functools.lru_cache(maxsize=64)
def _smoothing_matrix(log_steps: tuple[float, ...]) -> np.ndarray:
    """Returns the matrix [K, K] that maps losses to the values of their local regressions.

    Row k holds the weights by which the loss at k is estimated: those of a polynomial fitted by
    weighted least squares. With h the distance to the farthest of the neighbours, a loss at the
    distance d has the weight (1 - (d / h)^3)^3. Source: Cleveland 1979.
    """
    x = np.array(log_steps)
    count = len(x)
    if count < 3:
        return np.eye(count)
    degree = 2 if count >= _QUADRATIC else 1
    neighbours = min(count, max(_LEAST, math.ceil(NEIGHBOURS * count)))
    rows = []
    for centre in x:
        distance = np.abs(x - centre)
        # A little wider, so that the farthest neighbour counts as well.
        width = 1.05 * np.sort(distance)[neighbours - 1]
        weight = np.clip(1 - (distance / width) ** 3, 0, None) ** 3
        powers = np.vander((x - centre) / width, degree + 1, increasing=True)
        root = np.sqrt(weight)
        rows.append(np.linalg.pinv(root[:, None] * powers)[0] * root)
    return np.array(rows)
