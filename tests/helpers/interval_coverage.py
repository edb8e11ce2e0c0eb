"""How often the 95% interval of a speed-up contains the true one, over synthetic studies."""

import dataclasses
import math

import numpy as np
from synthetic_studies import Law, Noise, arm_with, losses, true_speed_up

from moe_jax.compare import intervals
from moe_jax.compare.smoothing import smooth
from moe_jax.compare.speed_up import Pair, speed_up

TOTAL = 2000
POWER_LAW = Law()
DECAYING = Law(drop=0.15)
# Single evaluations that are five times as noisy as the runs' own shifts.
NOISY = Noise(evaluation=0.03)
SPEED_UPS = (0.8, 1.0, 1.2, 1.5, 2.0)
SEEDS = (3, 5, 8)
# Seconds per step of the arm over the baseline's, where both are timed.
TIME_RATIO = 0.9


@dataclasses.dataclass(frozen=True)
class Case:
    """A kind of study.

    Attributes:
        speed_up: the planted speed-up in steps.
        seeds: number of pairs of runs.
        law: the baseline's noise-free curve.
        evaluations: evaluations of a run, at equal distances.
        noise: how runs differ.
        rounds: rounds of the timing for a speed-up in seconds; 0 for a speed-up in steps.
    """

    speed_up: float
    seeds: int
    law: Law = POWER_LAW
    evaluations: int = 20
    noise: Noise = dataclasses.field(default_factory=Noise)
    rounds: int = 0

    @property
    def words(self) -> str:
        words = "decaying rate" if self.law.drop else "power law"
        return words + ", noisy" * (self.noise == NOISY) + ", seconds" * (self.rounds > 0)


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
    return cases + [Case(1.2, n, rounds=12) for n in SEEDS]


def measure(case: Case, studies: int, seed: int = 0) -> Coverage:
    """Returns the shares over `studies` synthetic studies."""
    rng = np.random.default_rng([seed, case.seeds, case.evaluations, round(100 * case.speed_up)])
    arm = arm_with(case.speed_up, case.law, TOTAL)
    # Of the noise-free curves, not of an estimate.
    truth = true_speed_up(arm, case.law, TOTAL) / (TIME_RATIO if case.rounds else 1)
    steps = np.linspace(TOTAL / case.evaluations, TOTAL, case.evaluations).astype(int)
    covered = different = 0
    errors = []
    for _ in range(studies):
        of_arm, of_baseline = losses(rng, [arm, case.law], case.seeds, steps, case.noise)
        pairs = {
            k: Pair(smooth(steps, of_arm[k]), smooth(steps, of_baseline[k]))
            for k in range(case.seeds)
        }
        if case.rounds:
            logs = -math.log(TIME_RATIO) + 0.1 * rng.standard_normal(case.rounds)
            found = speed_up(pairs, "seconds", intervals.mean_of(logs.tolist())).estimate
        else:
            found = speed_up(pairs).estimate
        covered += found.low <= truth <= found.high
        different += found.p < 0.05
        errors.append(math.log(found.value / truth))
    return Coverage(covered / studies, different / studies, float(np.mean(errors)))
