"""The table of arms, and the line on the baseline against itself (A/A)."""

import math

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.table import Cell, Table, gap_cell, loss_cell, p_cell, speed_up_cell
from moe_jax.compare.results import ArmResult, Comparison, Estimate, SpeedUp


def arms_table(comparison: Comparison) -> Table:
    """Returns the main table: losses, gap and speed-up of each arm."""
    unit = units.name_of(comparison.plan.matched_by)
    columns = (
        "arm",
        f"speed-up in {unit}",
        "causal loss",
        "minus baseline",
        "loss as trained",
        "gap",
        "p",
        "p (Holm)",
        "reached",
        "seeds",
    )
    rows = [_row(comparison, arm) for arm in comparison.arms.values()]
    notes = (
        "An arm is one configuration, trained once for each seed. In brackets: 95% intervals over "
        "seeds.",
        f"Speed-up: baseline's cost in {unit} divided by the arm's, at equal causal loss; above 1 "
        "favours the arm. p: of no difference; p (Holm): corrected for all arms. Reached: pairs "
        "of runs in which the arm reached the baseline's final causal loss.",
        "Losses: final smoothed held-out losses in nats per token. Gap: causal loss minus loss as "
        "trained.",
    )
    caption = f"Arms compared with {comparison.plan.baseline}"
    return Table(caption, columns, tuple(rows), notes)


def _row(comparison: Comparison, arm: ArmResult) -> tuple[Cell, ...]:
    baseline, matched_by = comparison.baseline, comparison.plan.matched_by
    is_baseline = arm.name == baseline.name
    speed_up = units.speed_up(arm, matched_by)
    why = units.why_missing(arm, baseline, matched_by)
    estimate = None if speed_up is None else speed_up.estimate
    no_p = why
    if estimate is not None:
        no_p = "one pair" if estimate.seeds < 2 else "no interval"
    p, p_holm = (None, None) if estimate is None else (estimate.p, estimate.p_holm)
    return (
        Cell(arm.name, arm.description),
        Cell("1", "baseline") if is_baseline else speed_up_cell(speed_up, why),
        loss_cell(arm.causal_loss),
        loss_cell(arm.difference, "baseline" if is_baseline else "no pairs"),
        loss_cell(arm.loss),
        gap_cell(arm),
        p_cell(p, no_p),
        p_cell(p_holm, no_p),
        _reached(arm, matched_by, why),
        Cell(str(len(arm.runs))),
    )


def _reached(arm: ArmResult, matched_by: str, why: str) -> Cell:
    speed_up = units.speed_up(arm, matched_by)
    if speed_up is None:
        return Cell(digits.DASH, why)
    pairs = speed_up.estimate.seeds
    return Cell(f"{speed_up.reached} of {pairs}", "" if speed_up.reached else "not reached")


def aa_speed_up(comparison: Comparison) -> SpeedUp | None:
    """Returns the speed-up in steps of the baseline over itself, by which the study is checked."""
    return None if comparison.aa is None else units.speed_up(comparison.aa, "steps")


def aa_sentence(comparison: Comparison) -> str:
    """Returns the sentence on the A/A runs: whether their interval contains 1, and its width."""
    if comparison.aa is None:
        return (
            "A/A (the baseline against itself) was not run: the study does not show how large a "
            "difference the seeds alone make."
        )
    start = (
        f"A/A: {comparison.plan.baseline} against itself, with the same data and other initial "
        "parameters,"
    )
    speed_up = aa_speed_up(comparison)
    if speed_up is None:
        return f"{start} has no pair of runs with a common data seed."
    estimate = speed_up.estimate
    value, interval = digits.speed_up(speed_up)
    if not interval:
        pairs = "one pair" if estimate.seeds < 2 else f"{estimate.seeds} pairs"
        return f"{start} gives a speed-up of {value} in steps from {pairs}: no interval."
    found = f"{start} gives a speed-up of {value} {interval} in steps from {estimate.seeds} pairs."
    if not comparison.can_tell:
        return f"{found} The interval does not contain 1, although nothing differs but the seeds."
    return (
        f"{found} The interval contains 1, as it should; speed-ups {_resolution(estimate)} cannot "
        "be told from chance here."
    )


def _resolution(estimate: Estimate) -> str:
    """Returns the speed-ups in steps that an interval does not tell from 1, in words."""
    assert estimate.low is not None
    assert estimate.high is not None
    factor = math.sqrt(estimate.high / estimate.low)
    if factor >= 1.95:
        return f"in steps within a factor of about {factor:.1f} of 1"
    return f"in steps within about ±{100 * (factor - 1):.2g}% of 1"


def split_warnings(comparison: Comparison) -> tuple[str, tuple[str, ...]]:
    """Returns what stands above the answer if the A/A interval excludes 1, and other warnings."""
    if comparison.can_tell:
        return "", comparison.warnings
    start = "this study cannot tell"
    first = [line for line in comparison.warnings if line.lower().startswith(start)]
    others = tuple(line for line in comparison.warnings if line not in first)
    return first[0] if first else f"This study cannot tell. {aa_sentence(comparison)}", others
