"""The result of a comparison: what the statistics find and every form of the report shows."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from moe_jax.compare.records import Health, LeakTest, RunRecord, StudyPlan

# In what the cost of training up to a loss is counted. `tokens` differ from `steps` only if the
# arms' batches differ.
Unit = Literal["steps", "tokens", "slots", "flops", "seconds"]
# Which of the two held-out losses.
Routing = Literal["causal", "trained"]
# What a speed-up is if a run of a pair passed the compared loss before its first evaluation: a
# lower bound (runs of the arm), an upper bound (runs of the baseline), or neither (both).
Bound = Literal["lower", "upper", "neither"]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95% t-interval; for ratios, of their logarithms.

    Attributes:
        value: the mean, or the geometric mean of ratios.
        low: lower end of the interval; None with fewer than two seeds.
        high: upper end of the interval.
        seeds: number of seeds, or of pairs.
        p: two-sided p-value of "no difference"; None for quantities that are no comparison.
        p_holm: the p-value corrected for all comparisons of the same kind (Holm 1979).
    """

    value: float
    low: float | None
    high: float | None
    seeds: int
    p: float | None = None
    p_holm: float | None = None

    @property
    def is_difference(self) -> bool:
        """True if the corrected p-value is below 0.05."""
        return self.p_holm is not None and self.p_holm < 0.05


@dataclasses.dataclass(frozen=True)
class SpeedUp:
    """How much less of a unit an arm needs than the baseline, for the same held-out loss.

    Each pair of runs is compared at the higher of its two final smoothed losses, which both reach.
    Above 1 the arm is faster: it reached the baseline's final loss early. Below 1 it did not reach
    it, and the baseline reached the arm's final loss that much earlier.

    Attributes:
        estimate: geometric mean over the pairs.
        by_seed: the ratio of each pair, by data seed.
        reached: number of pairs in which the arm reached the baseline's final loss.
        loss: mean over the pairs of the loss at which they are compared.
        censored: number of pairs in which a run passed this loss before its first evaluation. The
            step of the first evaluation stands for the unknown one.
        bound: which bound of the speed-up `estimate` is, without an interval and a p-value; None
            if no pair is censored.
    """

    estimate: Estimate
    by_seed: Mapping[int, float]
    reached: int
    loss: float
    censored: int = 0
    bound: Bound | None = None


@dataclasses.dataclass(frozen=True)
class SpeedUpCurve:
    """The speed-up in steps as a function of the loss; K points each, from high losses to low ones.

    Attributes:
        losses: held-out losses.
        ratios: geometric means over the pairs that reach the loss in both runs.
        low: lower ends of 95% intervals; None where there are fewer than two pairs.
        high: upper ends.
        pairs: number of pairs.
    """

    losses: tuple[float, ...]
    ratios: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    pairs: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class MeanCurve:
    """Smoothed held-out causal loss over steps, averaged over the seeds; K points each."""

    steps: tuple[float, ...]
    loss: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclasses.dataclass(frozen=True)
class TargetCost:
    """What an arm needs for a given loss.

    Attributes:
        loss: held-out causal loss, nats per token.
        steps: geometric mean over the seeds that reach it; None if none does.
        reached: number of seeds that reach it.
        seeds: number of seeds.
        censored: number of seeds that reach it before their first evaluation, whose step is used
            instead; `steps` is an upper bound without an interval if there is one.
    """

    loss: float
    steps: Estimate | None
    reached: int
    seeds: int
    censored: int = 0


@dataclasses.dataclass(frozen=True)
class StepCost:
    """The cost of a training step of an arm.

    Attributes:
        tokens: tokens per step.
        slots: expert slots computed per step and layer.
        flops: active FLOPs.
        seconds: median wall time of the interleaved timing; None if it was not timed.
        seconds_ratio: wall time over the baseline's, from the rounds of the interleaved timing;
            its `seeds` are blocks of rounds.
    """

    tokens: float
    slots: float
    flops: float
    seconds: float | None = None
    seconds_ratio: Estimate | None = None


@dataclasses.dataclass(frozen=True)
class RateChoice:
    """The learning rate of an arm, chosen by the loss of trials on a seed not used afterwards.

    Attributes:
        losses: final held-out causal loss of each trial, by learning rate; infinite if it diverged.
        chosen: the learning rate with the lowest loss.
        at_edge: True if that is the lowest or highest of several: a better one may lie beyond.
    """

    losses: Mapping[float, float]
    chosen: float
    at_edge: bool


@dataclasses.dataclass(frozen=True)
class ArmResult:
    """An arm's losses, its comparison with the baseline, and its health.

    Attributes:
        name: name of the arm.
        description: what it is, in a few words.
        runs: its runs of the comparison, by data seed.
        loss: final smoothed held-out loss, routed as trained.
        causal_loss: final smoothed held-out loss, routed causally.
        gap: causal loss minus trained loss.
        difference: final causal loss minus the baseline's, paired; None for the baseline.
        speed_ups: speed-up over the baseline by routing and unit; empty for the baseline. A unit
            is missing where it cannot be told.
        curve: mean loss curve.
        speed_up_curve: speed-up in steps against the causal loss; None for the baseline.
        targets: cost of the study's targets.
        cost: cost of a step.
        rate: choice of the learning rate; None if there were no trials.
        health: medians over the runs.
        is_causal: False if training sees the future.
        leak_test: result of the random-token test; None if it was not run.
    """

    name: str
    description: str
    runs: Mapping[int, RunRecord]
    loss: Estimate
    causal_loss: Estimate
    gap: Estimate
    difference: Estimate | None
    speed_ups: Mapping[Routing, Mapping[Unit, SpeedUp]]
    curve: MeanCurve
    speed_up_curve: SpeedUpCurve | None
    targets: tuple[TargetCost, ...]
    cost: StepCost
    rate: RateChoice | None
    health: Health
    is_causal: bool
    leak_test: LeakTest | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A comparison of arms.

    Attributes:
        plan: what was asked.
        answer: the answer in one sentence, with its interval.
        arms: results by name, in the order of the plan; the baseline among them.
        aa: the baseline against itself with other initial parameters; None without such runs.
        can_tell: False if the interval of the A/A speed-up does not contain 1.
        warnings: lines that stand at the top: what makes the answer doubtful.
        left_out: lines on runs that were refused, or are marked.
        not_shown: sentences on what the study does not show.
        environments: distinct environments of the runs.
        all_runs: all runs on record, with trials of learning rates and those that are left out;
            empty if they are not known.
    """

    plan: StudyPlan
    answer: str
    arms: Mapping[str, ArmResult]
    aa: ArmResult | None
    can_tell: bool
    warnings: tuple[str, ...]
    left_out: tuple[str, ...]
    not_shown: tuple[str, ...]
    environments: tuple[Mapping[str, Any], ...]
    all_runs: tuple[RunRecord, ...] = ()

    @property
    def baseline(self) -> ArmResult:
        """The arm that the others are compared with."""
        return self.arms[self.plan.baseline]
