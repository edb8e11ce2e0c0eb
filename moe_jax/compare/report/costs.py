"""How the arms were matched: costs of a step, speed-ups in every unit, costs of the targets."""

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.table import Cell, Table, cell, ratio_cell
from moe_jax.compare.results import ArmResult, Comparison, TargetCost, Unit


def step_table(comparison: Comparison) -> Table:
    """Returns what a step of each arm costs."""
    columns = (
        "arm",
        "steps",
        "tokens a step",
        "slots a step and layer",
        "active FLOPs a step",
        "time a step",
        "time over baseline's",
    )
    rows = [_step_row(arm, comparison) for arm in comparison.arms.values()]
    notes = (
        "Steps: as planned for a run. Slots: rows that the experts of a layer compute. Time: "
        "median of the interleaved timing, in which the arms' steps take turns on one device.",
    )
    return Table("Cost of a training step", columns, tuple(rows), notes)


def _step_row(arm: ArmResult, comparison: Comparison) -> tuple[Cell, ...]:
    cost, planned = arm.cost, sorted({run.planned_steps for run in arm.runs.values()})
    ratio = ratio_cell(cost.seconds_ratio, "not timed")
    if arm.name == comparison.plan.baseline:
        ratio = Cell("1", "baseline")
    return (
        Cell(arm.name),
        cell(", ".join(f"{number:,}" for number in planned) or digits.DASH, "no run"),
        Cell(digits.steps(cost.tokens)),
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
    heads = [
        units.NAMES[unit] + (" (matched by)" if unit == matched else "") for unit in units.UNITS
    ]
    caption = "Speed-up in every unit, by the causal loss"
    return Table(caption, ("arm", *heads), tuple(rows))


def _unit_cell(arm: ArmResult, comparison: Comparison, unit: Unit) -> Cell:
    speed_up = units.speed_up(arm, unit)
    reason = units.why_missing(arm, comparison.baseline, unit)
    if arm is comparison.aa:
        reason = "as in steps"
    return ratio_cell(None if speed_up is None else speed_up.estimate, reason)


def seeds_table(comparison: Comparison) -> Table | None:
    """Returns the speed-up of every pair of runs; None without pairs."""
    matched_by = comparison.plan.matched_by
    found = [(arm, units.speed_up(arm, matched_by)) for arm in _compared(comparison)]
    seeds = sorted({seed for _, item in found if item for seed in item.by_seed})
    if not seeds:
        return None
    rows = [
        (
            Cell(arm.name),
            *(cell(digits.ratio(item.by_seed.get(seed)), "no pair") for seed in seeds),
        )
        for arm, item in found
        if item
    ]
    unit = units.name_of(matched_by)
    heads = [f"seed {seed}" for seed in seeds]
    return Table(f"Speed-up in {unit} of each pair of runs", ("arm", *heads), tuple(rows))


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
        "Geometric means over the seeds that reach the loss, with 95% intervals. Where some seeds "
        "do not reach it, the mean is too low: they would take longer. The baseline's final loss "
        "is that of each pair of runs.",
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
    return cell(text, "not finite", f"{interval} {reached}".strip())


def _compared(comparison: Comparison) -> list[ArmResult]:
    return [a for a in comparison.arms.values() if a.name != comparison.plan.baseline]
