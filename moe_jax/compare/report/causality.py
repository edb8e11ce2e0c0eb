"""Whether the arms see the future in training, and what that is worth."""

from moe_jax.compare.records import LeakTest
from moe_jax.compare.report import digits, units
from moe_jax.compare.report.table import Cell, Table, gap_cell, speed_up_cell
from moe_jax.compare.results import ArmResult, Comparison


def causality_table(comparison: Comparison) -> Table:
    """Returns router, pool, gap and leak test of each arm."""
    unit = units.name_of(comparison.plan.matched_by)
    columns = (
        "arm",
        "router",
        "sees the future",
        "gap",
        f"speed-up in {unit}, as trained",
        "random-token test",
    )
    rows = [_row(comparison, arm) for arm in comparison.arms.values()]
    notes = (
        "Sees the future: training lets a token's experts depend on later tokens, or on those of "
        "other texts in the batch. Then the loss as trained is not that of a language model, and "
        "the causal loss is the one to compare.",
        "Random-token test: a very small model with the arm's router is trained on uniform random "
        "tokens. A causal model's expected loss is at least ln V. A loss more than 4 standard "
        "errors (SE) below it shows a leak. A loss above does not exclude one: the model is very "
        "small (4 tokens, rows of 8, pools of at most 512 tokens).",
    )
    caption = "What each arm sees in training"
    return Table(caption, columns, tuple(rows), notes, is_text=True)


def _row(comparison: Comparison, arm: ArmResult) -> tuple[Cell, ...]:
    baseline, matched_by = comparison.baseline, comparison.plan.matched_by
    trained = units.speed_up(arm, matched_by, is_causal=False)
    why = units.why_missing(arm, baseline, matched_by)
    is_baseline = arm.name == baseline.name
    return (
        Cell(arm.name),
        _router(arm),
        Cell("no") if arm.is_causal else Cell("yes", "in training", is_flagged=True),
        gap_cell(arm),
        Cell("1", "baseline") if is_baseline else speed_up_cell(trained, why),
        _leak(arm.leak_test, arm.is_causal),
    )


def _router(arm: ArmResult) -> Cell:
    found = sorted({(run.router, run.pool) for run in arm.runs.values()})
    if not found:
        return Cell(digits.DASH, "no run")
    pools = sorted({pool for _, pool in found if pool})
    note = f"pool: {', '.join(pools)}" if pools else ""
    return Cell(", ".join(sorted({router for router, _ in found})), note)


def _leak(test: LeakTest | None, is_causal: bool) -> Cell:
    if test is None:
        return Cell(digits.DASH, "not run")
    note = (
        f"loss {digits.loss(test.loss)}, ln V = {digits.loss(test.floor)}, "
        f"{test.deviation:+.1f} SE, {test.steps:,} steps"
    )
    if test.leaks and is_causal:
        note += "; its router claims to be causal"
    return Cell("leaks" if test.leaks else "none detected", note, is_flagged=test.leaks)
