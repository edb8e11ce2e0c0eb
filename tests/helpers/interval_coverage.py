"""How often the 95% interval of a speed-up contains the true one, over synthetic studies."""

import dataclasses
import math

import numpy as np
from synthetic_studies import Law, Noise, arm_with, losses, true_speed_up

from moe_jax.compare.records import StepTimes
from moe_jax.compare.smoothing import smooth
from moe_jax.compare.speed_up import Pair, speed_up
from moe_jax.compare.step_costs import PairedTimes, log_time_ratio

TOTAL = 2000
POWER_LAW = Law()
DECAYING = Law(drop=0.15)
# Single evaluations that are five times as noisy as the runs' own shifts.
NOISY = Noise(evaluation=0.03)
SPEED_UPS = (0.8, 1.0, 1.2, 1.5, 2.0)
SEEDS = (3, 5, 8)
# Seconds per step of the arm over the baseline's, where both are timed.
TIME_RATIO = 0.9
ROUNDS = 20
# Standard deviations of the logarithm of a round's ratio of times, from far below to far above
# those of the speed-up in steps.
SPREADS = (0.003, 0.03, 0.1, 0.3)
# Of neighbouring rounds on a machine that others use as well.
CORRELATION = 0.5


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of study.

    Attributes:
        speed_up: the planted speed-up in steps.
        seeds: number of pairs of runs.
        law: the baseline's noise-free curve.
        evaluations: evaluations of a run, at equal distances.
        noise: how runs differ.
        spread: standard deviation of the logarithm of a round's ratio of times, for a speed-up in
            seconds; 0 for a speed-up in steps.
        is_shared: True for rounds of a shared machine: correlated, and with heavy tails.
    """

    speed_up: float
    seeds: int
    law: Law = POWER_LAW
    evaluations: int = 20
    noise: Noise = dataclasses.field(default_factory=Noise)
    spread: float = 0.0
    is_shared: bool = False

    @property
    def words(self) -> str:
        words = "decaying rate" if self.law.drop else "power law"
        words += ", noisy" * (self.noise == NOISY)
        words += f", seconds ±{self.spread:.1%}" * (self.spread > 0)
        return words + ", shared machine" * self.is_shared


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Shares of studies.

    Attributes:
        covered: whose interval contains the true speed-up.
        different: whose p-value is below 0.05.
        bias: mean of the estimate's logarithm minus that of the truth.
    """

    covered: float
    different: float
    bias: float


def all_cases() -> list[Case]:
    cases = [Case(s, n, law) for law in (POWER_LAW, DECAYING) for s in SPEED_UPS for n in SEEDS]
    cases += [Case(s, 5, DECAYING, k) for k in (10, 60) for s in (1.0, 1.2)]
    cases += [Case(s, n, DECAYING, noise=NOISY) for s in (1.0, 1.2, 2.0) for n in SEEDS]
    cases += [Case(1.2, n, spread=spread) for spread in SPREADS for n in SEEDS]
    return cases + [Case(1.2, 5, spread=spread, is_shared=True) for spread in SPREADS]


def measure(case: Case, studies: int, seed: int = 0) -> Coverage:
    """Returns the shares over `studies` synthetic studies."""
    rng = np.random.default_rng([seed, case.seeds, case.evaluations, round(100 * case.speed_up)])
    arm = arm_with(case.speed_up, case.law, TOTAL)
    # Of the noise-free curves, not of an estimate.
    truth = true_speed_up(arm, case.law, TOTAL) / (TIME_RATIO if case.spread else 1)
    steps = np.linspace(TOTAL / case.evaluations, TOTAL, case.evaluations).astype(int)
    covered = different = 0
    errors = []
    for _ in range(studies):
        of_arm, of_baseline = losses(rng, [arm, case.law], case.seeds, steps, case.noise)
        pairs = {
            k: Pair(smooth(steps, of_arm[k]), smooth(steps, of_baseline[k]))
            for k in range(case.seeds)
        }
        if case.spread:
            found = speed_up(pairs, "seconds", log_time_ratio(_times(rng, case))).estimate
        else:
            found = speed_up(pairs).estimate
        covered += found.low <= truth <= found.high
        different += found.p < 0.05
        errors.append(math.log(found.value / truth))
    return Coverage(covered / studies, different / studies, float(np.mean(errors)))


def _times(rng: np.random.Generator, case: Case) -> PairedTimes:
    """Returns interleaved times whose true ratio is TIME_RATIO."""
    noise = rng.standard_normal(ROUNDS)
    if case.is_shared:
        # Student's t with 3 degrees of freedom has the variance 3.
        noise = rng.standard_t(3, ROUNDS) / math.sqrt(3)
        for index in range(1, ROUNDS):
            new = math.sqrt(1 - CORRELATION**2) * noise[index]
            noise[index] = CORRELATION * noise[index - 1] + new
    seconds = TIME_RATIO * np.exp(case.spread * noise)
    return PairedTimes(
        StepTimes("arm", "", tuple(seconds.tolist()), "1 x cpu"),
        StepTimes("baseline", "", (1.0,) * ROUNDS, "1 x cpu"),
    )
