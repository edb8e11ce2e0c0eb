"""The figure of the loss curves: means and single seeds, and paired differences below."""

import math
from collections.abc import Sequence
from typing import Any

from moe_jax.compare.intervals import estimate
from moe_jax.compare.report import digits
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import ArmResult, Comparison, MeanCurve

NAME = "loss_curves"
TITLE = "Held-out causal loss over steps"
# Of the range of steps. The losses before are so high that the arms could not be told apart.
_CUT = 0.2

Points = Sequence[tuple[float, float]]
# Step, mean, and both ends of the interval, if there is one.
Band = Sequence[tuple[float, float, float | None, float | None]]


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Returns the figure; None if no arm has a curve."""
    arms = [arm for arm in comparison.arms.values() if _points(arm.curve)]
    if not arms:
        return None
    numbers, baseline = list(comparison.arms), comparison.baseline
    styles = {arm.name: canvas.arm_style(numbers.index(arm.name)) for arm in arms}
    bands = {arm.name: paired_differences(arm, baseline) for arm in arms if arm is not baseline}
    bands = {name: band for name, band in bands.items() if band}
    with canvas.styled(NAME):
        drawing, panels = canvas.panels_of(
            [3.0, 1.9][: 1 + bool(bands)], canvas.legend_height([arm.name for arm in arms])
        )
        handles = [_lines(panels[0], arm, styles[arm.name]) for arm in arms]
        panels[0].set_ylabel("causal loss (nats/token)")
        _limit(panels[0], [_points(arm.curve) for arm in arms], _lowest(arms))
        for name, band in bands.items():
            _draw_band(panels[1], band, styles[name])
        if bands:
            panels[1].axhline(0, color=canvas.INK, linewidth=1)
            panels[1].set_ylabel("minus baseline")
            _limit_differences(panels[1], list(bands.values()))
        panels[-1].set_xlabel("training steps")
        canvas.legend(drawing, handles, [arm.name for arm in arms])
        return canvas.save(drawing, NAME, TITLE, _describe(comparison, bool(bands)))


def paired_differences(arm: ArmResult, baseline: ArmResult) -> Band:
    """Returns the mean difference of the causal losses of paired runs, with its 95% t-interval.

    The losses are those of the evaluations, at the steps that all paired runs have in common.
    """
    pairs = [
        (_evaluations(arm, seed), _evaluations(baseline, seed))
        for seed in arm.runs
        if seed in baseline.runs
    ]
    if not pairs:
        return []
    common = set.intersection(*(set(losses) for pair in pairs for losses in pair))
    band = []
    for step in sorted(common):
        found = estimate([own[step] - other[step] for own, other in pairs])
        band.append((float(step), found.value, found.low, found.high))
    return band


def _evaluations(arm: ArmResult, seed: int) -> dict[int, float]:
    curve = arm.runs[seed].curve
    pairs = zip(curve.steps, curve.causal_loss, strict=True)
    return {step: loss for step, loss in pairs if step > 0 and canvas.finite(loss)}


def _points(curve: MeanCurve) -> Points:
    pairs = zip(curve.steps, curve.loss, strict=True)
    return [(step, loss) for step, loss in pairs if canvas.finite(step, loss)]


def _lines(axes: Any, arm: ArmResult, style: dict[str, str]) -> Any:
    """Draws the mean curve of an arm, and those of its runs if there are several."""
    for seed in arm.runs if len(arm.runs) > 1 else ():
        losses = _evaluations(arm, seed)
        axes.plot(list(losses), list(losses.values()), linewidth=0.6, alpha=0.45, **style)
    points = _points(arm.curve)
    marker = "o" if len(points) == 1 else None
    (line,) = axes.plot(*zip(*points, strict=True), linewidth=1.8, marker=marker, **style)
    return line


def _draw_band(axes: Any, band: Band, style: dict[str, str]) -> None:
    steps, means, lows, highs = zip(*band, strict=True)
    axes.plot(steps, means, linewidth=1.6, marker="o" if len(band) == 1 else None, **style)
    if canvas.finite(*lows, *highs):
        axes.fill_between(steps, lows, highs, color=style["color"], alpha=0.18, linewidth=0)


def _lowest(arms: Sequence[ArmResult]) -> float:
    """Returns the lowest evaluation of single seeds."""
    losses = [
        loss for arm in arms for seed in arm.runs for loss in _evaluations(arm, seed).values()
    ]
    return min(losses, default=math.inf)


def _limit(axes: Any, curves: Sequence[Points], lowest: float) -> None:
    """Limits the axis of losses to those after the first steps, with the lowest one on it."""
    last = max(step for curve in curves for step, _ in curve)
    late = [
        [loss for step, loss in curve if step >= _CUT * last] or [curve[-1][1]] for curve in curves
    ]
    low, high = min(lowest, *map(min, late)), max(losses[0] for losses in late)
    margin = 0.04 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)


def _limit_differences(axes: Any, bands: Sequence[Band]) -> None:
    """Limits the axis of differences to those after the first steps, with 0 on it."""
    last = max(band[-1][0] for band in bands)
    ends = [0.0]
    for band in bands:
        late = [found for found in band if found[0] >= _CUT * last] or [band[-1]]
        ends += [end for _, *found in late for end in found if end is not None]
    margin = 0.06 * (max(ends) - min(ends)) or 0.05
    axes.set_ylim(min(ends) - margin, max(ends) + margin)


def _describe(comparison: Comparison, has_differences: bool) -> tuple[str, str]:
    arms = comparison.arms.values()
    ends = [f"{arm.name} {digits.loss_estimate(arm.causal_loss)[0]}" for arm in arms]
    description = (
        "Thick lines: mean of the smoothed losses; thin lines: evaluations of single seeds. The "
        "vertical axis begins at the loss after 20% of training."
    )
    if has_differences:
        description += (
            f" Below: loss minus that of {comparison.plan.baseline}, mean over the pairs at each "
            "evaluation, with its 95% band."
        )
    return description, f"Final losses: {', '.join(ends)}."
