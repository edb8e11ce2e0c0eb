"""The choice of an arm's learning rate among the trials on a seed that is not used afterwards."""

import math
from collections.abc import Sequence

from moe_jax.compare.records import RunRecord
from moe_jax.compare.results import RateChoice
from moe_jax.compare.smoothing import smooth


def choose_rate(trials: Sequence[RunRecord]) -> RateChoice:
    """Returns the learning rate whose trial has the lowest final smoothed causal loss.

    A diverged trial has an infinite loss. Of equal losses, the lowest rate is chosen.

    Args:
        trials: one run per learning rate, each with its `learning_rate`. Unfinished ones are
            ignored; of several with the same rate the last counts.

    Raises:
        ValueError: if no trial has ended.
    """
    losses: dict[float, float] = {}
    for trial in trials:
        if trial.learning_rate is not None and trial.outcome != "unfinished":
            losses[trial.learning_rate] = _final_loss(trial)
    if not losses:
        raise ValueError("no trial of a learning rate has ended")
    losses = dict(sorted(losses.items()))
    chosen = min(losses, key=losses.__getitem__)
    at_edge = len(losses) > 1 and chosen in (min(losses), max(losses))
    return RateChoice(losses=losses, chosen=chosen, at_edge=at_edge)


def _final_loss(trial: RunRecord) -> float:
    if trial.outcome == "diverged" or not has_evaluations(trial):
        return math.inf
    return smooth(trial.curve.steps, trial.curve.causal_loss).final


def has_evaluations(run: RunRecord) -> bool:
    """Returns whether a run has an evaluation, with finite losses, after a training step."""
    curve = run.curve
    return any(
        step > 0 and math.isfinite(loss) and math.isfinite(causal)
        for step, loss, causal in zip(curve.steps, curve.loss, curve.causal_loss, strict=True)
    )
