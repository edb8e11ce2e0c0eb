"""The result of a comparison for the terminal."""

from collections.abc import Sequence

from moe_jax.compare.report import arms, digits, units
from moe_jax.compare.report.write import ReportFiles
from moe_jax.compare.results import ArmResult, Comparison
from moe_jax.formatting import printable

_LONGEST_NAME = 24


def summary_lines(comparison: Comparison, files: ReportFiles | None = None) -> list[str]:
    """Returns the answer, the warnings, a table of arms, the A/A line and the paths as lines.

    Args:
        comparison: what was found.
        files: the report that was written; its paths are the last lines.
    """
    doubt, warnings = arms.split_warnings(comparison)
    lines = [doubt] if doubt else []
    lines.append(comparison.answer)
    lines += [f"warning: {warning}" for warning in warnings]
    lines += ["", *_table(comparison)]
    lines += ["", arms.aa_sentence(comparison)]
    if comparison.left_out:
        lines += ["", f"left out: {len(comparison.left_out)}"]
        lines += [f"  {line}" for line in comparison.left_out]
    if files is not None:
        lines += ["", f"report: {files.html}", f"        {files.markdown}"]
    return [printable(line) for line in lines]


def _table(comparison: Comparison) -> list[str]:
    unit = units.name_of(comparison.plan.matched_by)
    head = ["arm", "causal loss", "as trained", f"speed-up in {unit}", "95% interval", "p (Holm)"]
    rows = [[*head, "seeds"]]
    rows += [_row(comparison, arm) for arm in comparison.arms.values()]
    return aligned(rows)


def _row(comparison: Comparison, arm: ArmResult) -> list[str]:
    speed_up = units.speed_up(arm, comparison.plan.matched_by)
    name = printable(arm.name)
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "…"
    if speed_up is None:
        why = units.why_missing(arm, comparison.baseline, comparison.plan.matched_by)
        ratio, interval, p = (digits.DASH, why, digits.DASH)
    else:
        ratio, interval = digits.speed_up(speed_up)
        p = digits.p_value(speed_up.estimate.p_holm)
        if not speed_up.reached:
            ratio += " (not reached)"
    losses = [digits.loss_estimate(found)[0] for found in (arm.causal_loss, arm.loss)]
    return [name, *losses, ratio, interval or digits.DASH, p, str(len(arm.runs))]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as lines with columns of equal width, numbers at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if number == 0 else text.rjust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
