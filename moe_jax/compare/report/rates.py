"""The learning-rate sweep."""

from moe_jax.compare.report import digits
from moe_jax.compare.report.table import Cell, Table
from moe_jax.compare.results import ArmResult, Comparison

_EDGE = "at the edge of its grid"


def rates_table(comparison: Comparison) -> Table:
    """Returns the losses of the trials, or the learning rates in use where there were none."""
    arms = list(comparison.arms.values())
    rates = sorted({rate for arm in arms if arm.rate for rate in arm.rate.losses})
    heads = [f"loss at {digits.learning_rate(rate)}" for rate in rates]
    rows = [(Cell(arm.name), _chosen(arm), *(_trial(arm, rate) for rate in rates)) for arm in arms]
    return Table(
        "Final causal loss by learning rate",
        ("arm", "learning rate", *heads),
        tuple(rows),
        _notes(comparison),
    )


def _notes(comparison: Comparison) -> tuple[str, ...]:
    if all(arm.rate is None for arm in comparison.arms.values()):
        return ("No learning rates were tried: the arms' configurations give them.",)
    seed = comparison.plan.rate_seed
    where = "one seed" if seed is None else f"seed {seed}"
    return (
        f"Final held-out causal loss of one run for each rate, on {where}, which the comparison "
        f"does not use. The lowest loss chooses. A choice {_EDGE} is marked: a better rate may "
        "lie beyond it.",
    )


def _chosen(arm: ArmResult) -> Cell:
    if arm.rate is not None:
        note = _EDGE if arm.rate.at_edge else "chosen by trials"
        return Cell(digits.learning_rate(arm.rate.chosen), note, arm.rate.at_edge)
    used = sorted({run.learning_rate for run in arm.runs.values() if run.learning_rate is not None})
    if not used:
        return Cell(digits.DASH, "the schedule has no peak")
    return Cell(", ".join(digits.learning_rate(rate) for rate in used), "no trials")


def _trial(arm: ArmResult, rate: float) -> Cell:
    if arm.rate is None or rate not in arm.rate.losses:
        return Cell(digits.DASH, "not tried")
    text = digits.loss(arm.rate.losses[rate])
    if text == digits.DASH:
        return Cell(text, "diverged")
    return Cell(text, "chosen" if rate == arm.rate.chosen else "")
