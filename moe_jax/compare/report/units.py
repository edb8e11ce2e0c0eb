"""Names of the units in which the cost of training is counted, and reasons why one is missing."""

from moe_jax.compare.results import ArmResult, SpeedUp, Unit

# In the order of the report.
UNITS: tuple[Unit, ...] = ("steps", "tokens", "slots", "flops", "seconds")
NAMES: dict[Unit, str] = {
    "steps": "steps",
    "tokens": "tokens",
    "slots": "expert slots",
    "flops": "FLOPs",
    "seconds": "wall time",
}


def unit_of(matched_by: str) -> Unit:
    """Returns the unit of a study; `steps` for one that is not known."""
    return next((unit for unit in UNITS if unit == matched_by), "steps")


def name_of(matched_by: str) -> str:
    """Returns the name of a unit in a sentence."""
    return NAMES[unit_of(matched_by)]


def speed_up(arm: ArmResult, matched_by: str, is_causal: bool = True) -> SpeedUp | None:
    """Returns the speed-up of an arm by its causal loss, or by its loss as trained."""
    by_unit = arm.speed_ups.get("causal" if is_causal else "trained", {})
    return by_unit.get(unit_of(matched_by))


def why_missing(arm: ArmResult, baseline: ArmResult, matched_by: str) -> str:
    """Returns the reason why the speed-up of an arm is missing in a unit."""
    if arm.name == baseline.name:
        return "baseline"
    if unit_of(matched_by) == "seconds" and None in (arm.cost.seconds, baseline.cost.seconds):
        return "steps not timed"
    if unit_of(matched_by) == "slots" and not (arm.cost.slots and baseline.cost.slots):
        return "dense: no expert slots"
    return "no pair of runs with a common seed"
