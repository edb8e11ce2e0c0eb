"""The figure of the speed-up in steps as a function of the loss."""

import math
from typing import Any

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import ArmResult, Comparison, SpeedUpCurve

NAME = "speed_up_by_loss"


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Returns the figure; None if no arm has such a curve."""
    arms = [arm for arm in comparison.arms.values() if _points(arm.speed_up_curve)]
    if not arms:
        return None
    numbers = list(comparison.arms)
    with canvas.styled(NAME):
        drawing, axes = canvas.axes_of(3.1 + canvas.legend_height([arm.name for arm in arms]))
        handles = []
        for arm in arms:
            style = canvas.arm_style(numbers.index(arm.name))
            handles.append(_line(axes, arm, style))
        ratios = [ratio for arm in arms for _, ratio in _points(arm.speed_up_curve)]
        canvas.ratio_axis(axes.yaxis, min(ratios), max(ratios))
        axes.axhline(1, color=canvas.INK, linewidth=1)
        axes.invert_xaxis()
        axes.set_xlabel("causal loss (nats/token), training goes to the right")
        axes.set_ylabel("speed-up in steps")
        canvas.legend(drawing, handles, [arm.name for arm in arms])
        title = f"Speed-up in steps over {comparison.plan.baseline}, against the loss"
        return canvas.save(drawing, NAME, title, _describe(arms))


def _points(curve: SpeedUpCurve | None) -> list[tuple[float, float]]:
    if curve is None:
        return []
    pairs = zip(curve.losses, curve.ratios, strict=True)
    return [(loss, ratio) for loss, ratio in pairs if canvas.finite(loss, ratio) and ratio > 0]


def _complete(arm: ArmResult) -> list[tuple[float, float]]:
    """Returns the points at which all pairs of an arm count."""
    curve = arm.speed_up_curve
    assert curve is not None
    speed_up = units.speed_up(arm, "steps")
    pairs = max(curve.pairs) if speed_up is None else speed_up.estimate.seeds
    losses = {loss for loss, count in zip(curve.losses, curve.pairs, strict=True) if count == pairs}
    return [point for point in _points(curve) if point[0] in losses]


def _line(axes: Any, arm: ArmResult, style: dict[str, str]) -> Any:
    """Draws a curve: dotted where only some pairs count, with a line and a band where all do."""
    curve = arm.speed_up_curve
    assert curve is not None
    colour, complete = style["color"], _complete(arm)
    points = _points(curve)
    axes.plot(*zip(*points, strict=True), ":", linewidth=1.2, color=colour)
    marker = "o" if len(complete) == 1 else None
    # The line is broken where points are left out.
    (line,) = axes.plot(
        [loss for loss, _ in points],
        [point[1] if point in complete else math.nan for point in points],
        linewidth=1.8,
        marker=marker,
        **style,
    )
    losses = {loss for loss, _ in complete}
    band = [
        (loss, low, high) if loss in losses else (loss, math.nan, math.nan)
        for loss, low, high in zip(curve.losses, curve.low, curve.high, strict=True)
        if low is not None and canvas.finite(loss, low, high) and low > 0
    ]
    if band:
        axes.fill_between(*zip(*band, strict=True), color=style["color"], alpha=0.15, linewidth=0)
    return line


def _describe(arms: list[ArmResult]) -> tuple[str, str]:
    ends = []
    for arm in arms:
        complete = _complete(arm)
        if complete:
            loss, value = complete[-1]
            ends.append(f"{arm.name} {digits.ratio(value)} at {digits.loss(loss)}")
        else:
            ends.append(f"{arm.name} none")
    description = (
        "Lines: geometric mean over all pairs; bands: 95% intervals, which may go beyond the axis. "
        "Dotted: only some of the pairs have this loss in both runs. High losses, early in "
        "training, are at the left."
    )
    return description, f"At the lowest loss that all pairs reach: {', '.join(ends)}."
