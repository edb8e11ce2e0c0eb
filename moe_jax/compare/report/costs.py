"""Costs of a step, speed-ups in every unit, and steps to the target losses."""

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.table import Cell, Table, cell, speed_up_cell
from moe_jax.compare.results import ArmResult, Comparison, TargetCost, Unit


def step_table(comparison: Comparison) -> Table:
    """Returns what a step of each arm costs."""
    columns = (
        "arm",
        "steps",
        "tokens per step",
        "experts per token",
        "slots per step and layer",
        "FLOPs per step, at capacity",
        "step time",
        "over baseline's",
    )
    rows = [_step_row(arm, comparison) for arm in comparison.arms.values()]
    notes = (
        "Experts per token: measured at the end of training. Slots: the capacity of the experts, "
        "filled or not: what static buffers compute; the default grouped dispatch skips empty "
        "ones. FLOPs at capacity: model FLOPs with that many slots. Step time: median of the "
        "interleaved timing, in which the arms' steps take turns on one device.",
    )
    return Table("Cost of a training step", columns, tuple(rows), notes)


def _step_row(arm: ArmResult, comparison: Comparison) -> tuple[Cell, ...]:
    cost, planned = arm.cost, sorted({run.planned_steps for run in arm.runs.values()})
    is_dense = {run.router for run in arm.runs.values()} == {"dense"}
    ratio = Cell(digits.DASH, "not timed")
    if cost.seconds_ratio is not None:
        text, interval = digits.ratio_estimate(cost.seconds_ratio)
        ratio = cell(text, "not finite", interval or "no interval")
    if arm.name == comparison.plan.baseline:
        ratio = Cell("1", "baseline")
    return (
        Cell(arm.name),
        cell(", ".join(f"{number:,}" for number in planned) or digits.DASH, "no run"),
        Cell(digits.steps(cost.tokens)),
        cell(digits.plain(arm.health.mean_experts), "dense" if is_dense else "not on record"),
        Cell(digits.steps(cost.slots), "" if cost.slots else "dense"),
        Cell(digits.flops(cost.flops)),
        cell(digits.seconds(cost.seconds), "not timed"),
        ratio,
    )


def units_table(comparison: Comparison) -> Table:
    """Returns the speed-up of each arm in every unit."""
    arms = _compared(comparison)
    if comparison.aa is not None:
        arms.append(comparison.aa)
    rows = []
    for arm in arms:
        cells = [_unit_cell(arm, comparison, unit) for unit in units.UNITS]
        name = "A/A" if arm is comparison.aa else arm.name
        rows.append((Cell(name), *cells))
    matched = units.unit_of(comparison.plan.matched_by)
    heads = [units.NAMES[unit] + (" (answer)" if unit == matched else "") for unit in units.UNITS]
    caption = "Speed-up in every unit, at equal causal loss"
    return Table(caption, ("arm", *heads), tuple(rows))


def _unit_cell(arm: ArmResult, comparison: Comparison, unit: Unit) -> Cell:
    speed_up = units.speed_up(arm, unit)
    reason = units.why_missing(arm, comparison.baseline, unit)
    if arm is comparison.aa:
        reason = "as in steps"
    return speed_up_cell(speed_up, reason)


def targets_table(comparison: Comparison) -> Table | None:
    """Returns the steps that each arm needs for given losses; None without targets."""
    goals = comparison.plan.targets
    if not any(arm.targets for arm in comparison.arms.values()):
        return None
    rows = []
    for arm in comparison.arms.values():
        # The first one is the baseline's final loss, where the arm has a pair of runs.
        found = arm.targets[-len(goals) :] if goals else ()
        of_final = arm.targets[0] if len(arm.targets) > len(goals) else None
        cells = [_target_cell(target) for target in (of_final, *found)]
        cells += [Cell(digits.DASH, "no run")] * (len(goals) + 1 - len(cells))
        rows.append((Cell(arm.name), *cells))
    final = digits.loss_estimate(comparison.baseline.causal_loss)[0]
    heads = [f"{final}, the baseline's final loss", *(digits.loss(goal) for goal in goals)]
    notes = (
        "Geometric means over seeds, with 95% intervals. Seeds that never reach the loss are left "
        "out, so the mean is a lower bound (≥). The baseline's final loss is that of each pair of "
        "runs.",
    )
    caption = "Steps to reach a held-out causal loss"
    return Table(caption, ("arm", *heads), tuple(rows), notes)


def _target_cell(target: TargetCost | None) -> Cell:
    if target is None:
        return Cell(digits.DASH, "no pair of runs")
    reached = f"{target.reached} of {target.seeds} seeds"
    if target.steps is None:
        return Cell("not reached", reached)
    text, interval = digits.steps_estimate(target.steps)
    if target.reached < target.seeds and target.censored:
        return Cell(digits.DASH, f"{reached}, {target.censored} before the first evaluation")
    if target.reached < target.seeds and text != digits.DASH:
        return Cell(f"≥ {text}", reached)
    if target.censored and text != digits.DASH:
        return Cell(f"≤ {text}", f"{target.censored} before the first evaluation")
    return cell(text, "not finite", f"{interval} {reached}".strip())


def _compared(comparison: Comparison) -> list[ArmResult]:
    return [a for a in comparison.arms.values() if a.name != comparison.plan.baseline]
