"""The speed-up of an arm over the baseline: the ratio of their costs for the same held-out loss."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from moe_jax.compare import intervals
from moe_jax.compare.intervals import Mean
from moe_jax.compare.results import Bound, SpeedUp, SpeedUpCurve, Unit
from moe_jax.compare.smoothing import SmoothCurve

_POINTS = 50


@dataclasses.dataclass(frozen=True)
class Pair:
    """A run of an arm and the baseline's run with the same data order.

    Attributes:
        arm: smoothed losses of the arm.
        baseline: smoothed losses of the baseline.
        cost_ratios: cost of a step of the baseline over that of the arm, by unit; without
            `seconds`, which are not known for single runs.
    """

    arm: SmoothCurve
    baseline: SmoothCurve
    cost_ratios: Mapping[Unit, float] = dataclasses.field(default_factory=lambda: {"steps": 1.0})

    @property
    def loss(self) -> float:
        """The higher of the two final losses: the lowest loss that both runs reach."""
        return max(self.arm.final, self.baseline.final)

    @property
    def is_reached(self) -> bool:
        """True if the arm reaches the baseline's final loss."""
        return self.arm.final <= self.baseline.final

    @property
    def bound(self) -> Bound | None:
        """Which bound `final_ratio` is; None if both runs passed `loss` after an evaluation."""
        arm, baseline = self.arm.is_censored(self.loss), self.baseline.is_censored(self.loss)
        if arm and baseline:
            return "neither"
        return "lower" if arm else "upper" if baseline else None

    def ratio(self, loss: float) -> float | None:
        """Returns the baseline's steps to a loss over the arm's; None if one does not reach it."""
        arm, baseline = self.arm.step_at(loss), self.baseline.step_at(loss)
        return None if arm is None or baseline is None else baseline / arm

    @property
    def final_ratio(self) -> float:
        """The ratio of steps at the lowest loss that both runs reach."""
        found = self.ratio(self.loss)
        assert found is not None
        return found


def speed_up(
    pairs: Mapping[int, Pair], unit: Unit = "steps", log_time_ratio: Mean | None = None
) -> SpeedUp | None:
    """Returns the speed-up over pairs of runs, counted in a unit.

    With cost per step k, it is (steps of the baseline * k of the baseline) / (steps of the arm * k
    of the arm), where both have the same loss.

    Args:
        pairs: pairs of runs by data seed.
        unit: in what the cost is counted.
        log_time_ratio: logarithm of the baseline's seconds per step over the arm's; used for
            `seconds`.

    Returns:
        The speed-up, without an interval and a p-value if it is a bound; None without pairs, and if
        the unit's cost of a step is not known.
    """
    factor = None
    if unit == "seconds":
        if log_time_ratio is None:
            return None
        factor = log_time_ratio
        cost_ratios = dict.fromkeys(pairs, 1.0)
    else:
        cost_ratios = {s: p.cost_ratios[unit] for s, p in pairs.items() if unit in p.cost_ratios}
    if not pairs or len(cost_ratios) < len(pairs):
        return None
    ratios = {seed: pair.final_ratio * cost_ratios[seed] for seed, pair in pairs.items()}
    scale = 1.0 if factor is None else float(np.exp(factor.value))
    estimate = intervals.ratio(list(ratios.values()), factor)
    bounds = [pair.bound for pair in pairs.values() if pair.bound is not None]
    if bounds:
        estimate = dataclasses.replace(estimate, low=None, high=None, p=None)
    return SpeedUp(
        estimate=estimate,
        by_seed={seed: value * scale for seed, value in ratios.items()},
        reached=sum(pair.is_reached for pair in pairs.values()),
        loss=float(np.mean([pair.loss for pair in pairs.values()])),
        censored=len(bounds),
        bound=(bounds[0] if len(set(bounds)) == 1 else "neither") if bounds else None,
    )


def speed_up_curve(pairs: Sequence[Pair], points: int = _POINTS) -> SpeedUpCurve | None:
    """Returns the speed-up in steps over a grid of losses; None if no pair shares a loss.

    The grid goes from the highest loss that some pair has passed in both runs to the lowest that
    some pair reaches in both. A pair counts at the losses between its own such bounds.
    """
    bounds = [(min(pair.arm.first, pair.baseline.first), pair.loss) for pair in pairs]
    bounds = [(high, low) for high, low in bounds if high >= low]
    if not bounds:
        return None
    grid = np.linspace(max(high for high, _ in bounds), min(low for _, low in bounds), points)
    kept, estimates = [], []
    for loss in np.unique(grid)[::-1]:
        inside = [p for p in pairs if p.loss <= loss <= min(p.arm.first, p.baseline.first)]
        ratios = [ratio for pair in inside if (ratio := pair.ratio(float(loss))) is not None]
        if ratios:
            kept.append(float(loss))
            estimates.append(intervals.ratio(ratios))
    return SpeedUpCurve(
        losses=tuple(kept),
        ratios=tuple(found.value for found in estimates),
        low=tuple(found.low for found in estimates),
        high=tuple(found.high for found in estimates),
        pairs=tuple(found.seeds for found in estimates),
    )
