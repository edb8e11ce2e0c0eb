"""Whether the runs were in order: drops, load, speed and memory of each arm."""

from moe_jax.compare.report import digits
from moe_jax.compare.report.table import Cell, Table, cell
from moe_jax.compare.results import ArmResult, Comparison

_UNKNOWN = "not on record"
_DENSE = "dense"


def health_table(comparison: Comparison) -> Table:
    """Returns the health of each arm: medians over its runs."""
    columns = (
        "arm",
        "dropped assignments",
        "tokens without expert",
        "max violation",
        "experts per token",
        "skipped updates",
        "step time",
        "tokens/s",
        "memory",
        "parameters",
    )
    rows = [_row(arm) for arm in comparison.arms.values()]
    notes = (
        "Medians over the runs; shares are means over layers at the end of training. Max "
        "violation: largest load of an expert over the mean load, minus 1, in the worst layer. "
        "Step time and tokens/s are those of the runs themselves, which other work on "
        "the machine slows down; the interleaved timing is the one to compare.",
    )
    return Table("Drops, load, speed and memory", columns, tuple(rows), notes)


def _row(arm: ArmResult) -> tuple[Cell, ...]:
    health = arm.health
    is_dense = {run.router for run in arm.runs.values()} == {"dense"}
    reason = _DENSE if is_dense else _UNKNOWN
    causal = digits.plain(health.causal_mean_experts)
    experts_note = "" if causal == digits.DASH else f"causal: {causal}"
    skipped = health.skipped_updates
    return (
        Cell(arm.name),
        cell(digits.share(health.dropped_share), reason),
        cell(digits.share(health.unrouted_share), reason),
        cell(digits.plain(health.max_violation), reason),
        cell(digits.plain(health.mean_experts), reason, experts_note),
        Cell(digits.DASH, _UNKNOWN)
        if skipped is None
        else Cell(f"{skipped:,}", is_flagged=skipped > 0),
        cell(digits.seconds(health.step_seconds), _UNKNOWN),
        cell(digits.steps(health.tokens_per_second), _UNKNOWN),
        cell(digits.memory(health.memory_bytes), _UNKNOWN),
        _parameters(arm),
    )


def _parameters(arm: ArmResult) -> Cell:
    found = sorted({(run.parameters, run.active_parameters) for run in arm.runs.values()})
    if not found:
        return Cell(digits.DASH, "no run")
    totals, active = zip(*found, strict=True)
    return Cell(
        ", ".join(dict.fromkeys(digits.steps(n) for n in totals)),
        "active: " + ", ".join(dict.fromkeys(digits.steps(n) for n in active)),
    )
