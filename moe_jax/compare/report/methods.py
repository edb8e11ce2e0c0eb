"""How the numbers of a report were made, in words."""

from moe_jax.compare.report import digits, units
from moe_jax.compare.results import Comparison
from moe_jax.compare.smoothing import NEIGHBOURS


def method_lines(comparison: Comparison) -> tuple[str, ...]:
    """Returns the sentences on seeds, pairing, smoothing, intervals and matching."""
    return (
        _seeds(comparison),
        "Pairing: a run of an arm is compared with the baseline's run of the same data seed, which "
        "sees the same batches in the same order.",
        "Smoothing: the held-out losses of a run are smoothed over the logarithm of the step by "
        f"local quadratic regression over the nearest {NEIGHBOURS:.0%} of the evaluations, then "
        "made non-increasing by isotonic regression. The final loss is the last smoothed value.",
        "Speed-up of a pair: the cost at which the baseline reaches a loss, divided by the cost at "
        "which the arm reaches it, interpolated in the logarithm of the step. The loss is the "
        "higher of the two final losses, the lowest that both runs reach. Above 1 the arm reached "
        "the baseline's final loss early. Below 1 it did not reach it, and the baseline reached "
        "the arm's final loss that much earlier.",
        "Speed-up of an arm: the geometric mean over its pairs. Interval: with m the mean of the n "
        "logarithms of the ratios, s their standard deviation (divisor n - 1) and t the 97.5% "
        "quantile of Student's distribution with n - 1 degrees of freedom, exp(m - t s / √n) to "
        "exp(m + t s / √n). p is that of the t-test of m = 0.",
        "Losses, gaps and differences of losses: the mean over seeds or pairs, and mean ± t s / √n "
        "of the values themselves.",
        "Several arms: p (Holm) is the p-value corrected for the number of arms (Holm 1979). A "
        "difference is claimed where it is below 0.05. The intervals are not corrected.",
        _matching(comparison),
    )


def _seeds(comparison: Comparison) -> str:
    plan = comparison.plan
    seeds = ", ".join(str(seed) for seed in plan.seeds)
    found = f"Seeds: {seeds}." if seeds else "Seeds: those of the runs that were found."
    if plan.aa:
        found += (
            " A/A: the baseline again with the same data seeds and other seeds of the parameters."
        )
    if plan.learning_rates:
        rates = ", ".join(digits.learning_rate(rate) for rate in plan.learning_rates)
        found += f" Learning rates tried for each arm: {rates}."
    return found


def _matching(comparison: Comparison) -> str:
    unit = units.unit_of(comparison.plan.matched_by)
    start = f"Matched by {units.NAMES[unit]}: the answer counts the cost of training in "
    in_words = {
        "steps": "training steps.",
        "tokens": "training tokens: steps times tokens in a batch.",
        "slots": "expert slots: steps times the rows that the experts of a layer compute.",
        "flops": "active FLOPs: steps times the floating-point operations of a step, with the "
        "experts that a token uses.",
        "seconds": "wall time: steps times the time of a step. The arms' steps were timed in turn "
        "on the same devices, so that a slow phase of the machine meets all arms. The uncertainty "
        "of this ratio is a part of the interval, with degrees of freedom by Welch and "
        "Satterthwaite.",
    }
    return start + in_words[unit]
