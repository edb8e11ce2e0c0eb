"""The runs one by one: final loss and speed-up of each seed."""

from moe_jax.compare.records import RunRecord
from moe_jax.compare.report import digits, units
from moe_jax.compare.report.table import Cell, Table, cell
from moe_jax.compare.results import Comparison
from moe_jax.compare.smoothing import smooth


def losses_table(comparison: Comparison) -> Table:
    """Returns the final causal loss of every run."""
    arms = {arm.name: arm.runs for arm in comparison.arms.values()}
    if comparison.aa is not None:
        arms["A/A"] = comparison.aa.runs
    seeds = sorted({seed for runs in arms.values() for seed in runs})
    rows = [
        (Cell(name), *(cell(_final(runs.get(seed)), "no run") for seed in seeds))
        for name, runs in arms.items()
    ]
    return Table("Final causal loss of each run", ("arm", *_heads(seeds)), tuple(rows))


def _final(run: RunRecord | None) -> str:
    try:
        return digits.DASH if run is None else digits.loss(_smoothed(run))
    except ValueError:
        return digits.DASH


def _smoothed(run: RunRecord) -> float:
    return smooth(run.curve.steps, run.curve.causal_loss).final


def speed_ups_table(comparison: Comparison) -> Table | None:
    """Returns the speed-up of every pair of runs; None without pairs."""
    matched_by = comparison.plan.matched_by
    arms = [arm for arm in comparison.arms.values() if arm.name != comparison.plan.baseline]
    found = [(arm, units.speed_up(arm, matched_by)) for arm in arms]
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
    caption = f"Speed-up in {unit} of each pair of runs"
    return Table(caption, ("arm", *_heads(seeds)), tuple(rows))


def _heads(seeds: list[int]) -> list[str]:
    return [f"seed {seed}" for seed in seeds]
