"""How the numbers of a report were made, in words."""

from moe_jax.compare.report import digits, units
from moe_jax.compare.results import Comparison
from moe_jax.compare.smoothing import NEIGHBOURS


def method_lines(comparison: Comparison) -> tuple[str, ...]:
    """Returns the sentences on seeds, pairing, losses, intervals and units."""
    return (
        _seeds(comparison),
        "Pairing: a run of an arm is compared with the baseline's run of the same data seed, which "
        "sees the same batches in the same order.",
        "Causal loss: the held-out loss with the experts of a token chosen without later tokens. "
        "Expert choice: thresholds, averaged in training, decide for each token on its own. Token "
        "choice with a capacity: each token gets its k best experts, nothing is dropped. Routers "
        "that are causal in training stay as they are.",
        "Smoothing: local quadratic regression of the held-out losses over the logarithm of the "
        f"step, with tricube weights over the nearest {NEIGHBOURS:.0%} of the evaluations, at "
        "least 6 (linear with fewer than 5 evaluations). Its last value is the final loss. "
        "Isotonic regression then makes the curve non-increasing, so that it reaches every loss "
        "once.",
        "Speed-up of a pair: the cost at which the baseline reaches a loss, divided by the cost at "
        "which the arm reaches it, interpolated in the logarithm of the step. The loss is the "
        "higher of the two final losses, the lowest that both runs reach. Above 1 the arm reached "
        "the baseline's final loss early. Below 1 it did not reach it, and the baseline reached "
        "the arm's final loss that much earlier. Where a run passed the loss before its first "
        "evaluation, the speed-up is a bound (≥ or ≤), without an interval.",
        "Speed-up of an arm: the geometric mean over its pairs. Interval: with m the mean of the n "
        "logarithms of the ratios, s their standard deviation (divisor n - 1) and t the 97.5% "
        "quantile of Student's distribution with n - 1 degrees of freedom, exp(m - t s / √n) to "
        "exp(m + t s / √n). p: two-sided paired t-test that the mean log speed-up is 0.",
        "Losses, gaps and differences of losses: the mean over seeds or pairs, and mean ± t s / √n "
        "of the values themselves.",
        "Several arms: p (Holm) is the p-value corrected for the number of arms (Holm 1979). A "
        "difference is claimed where it is below 0.05. The intervals are not corrected.",
        _unit(comparison),
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


def _unit(comparison: Comparison) -> str:
    unit = units.unit_of(comparison.plan.matched_by)
    start = f"Counted in {units.NAMES[unit]}: "
    in_words = {
        "steps": "the cost of training is the number of training steps.",
        "tokens": "the cost of training is steps times tokens in a batch.",
        "slots": "the cost of training is steps times the slots of a layer's experts, filled or "
        "not: what static buffers compute.",
        "flops": "the cost of training is steps times the model FLOPs of a step in which all "
        "expert slots are filled.",
        "seconds": "the cost of training is steps times the time of a step. The arms' steps were "
        "timed in turn on the same devices, so that a slow phase of the machine meets all arms; "
        "their ratio is the geometric mean over blocks of rounds of the median in each. "
        "Interval: on the logarithm, its half-width is the root of the sum of the squares of the "
        "half-widths of the speed-up in steps and of the ratio of step times.",
    }
    return start + in_words[unit]
