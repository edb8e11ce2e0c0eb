"""The figure of the loss curves: means over seeds with bands."""

from typing import Any

from moe_jax.compare.report import digits
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import Comparison, MeanCurve

NAME = "loss_curves"
TITLE = "Held-out causal loss over steps"
# Of the range of steps. The losses before are so high that the arms could not be told apart.
_CUT = 0.2


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Returns the figure; None if no arm has a curve."""
    arms = [arm for arm in comparison.arms.values() if _points(arm.curve)]
    if not arms:
        return None
    numbers = list(comparison.arms)
    with canvas.styled(NAME):
        drawing, axes = canvas.axes_of(3.1 + canvas.legend_height([arm.name for arm in arms]))
        handles = []
        for arm in arms:
            style = canvas.arm_style(numbers.index(arm.name))
            handles.append(_line(axes, arm.curve, style))
        axes.set_xlabel("training steps")
        axes.set_ylabel("causal loss (nats/token)")
        _limit(axes, [arm.curve for arm in arms])
        canvas.legend(drawing, handles, [arm.name for arm in arms])
        return canvas.save(drawing, NAME, TITLE, _describe(comparison))


def _points(curve: MeanCurve) -> list[tuple[float, float]]:
    pairs = zip(curve.steps, curve.loss, strict=True)
    return [(step, loss) for step, loss in pairs if canvas.finite(step, loss)]


def _line(axes: Any, curve: MeanCurve, style: dict[str, str]) -> Any:
    points = _points(curve)
    marker = "o" if len(points) == 1 else None
    (line,) = axes.plot(*zip(*points, strict=True), linewidth=1.6, marker=marker, **style)
    band = [
        (step, low, high)
        for step, low, high in zip(curve.steps, curve.low, curve.high, strict=True)
        if canvas.finite(step, low, high)
    ]
    if band:
        axes.fill_between(*zip(*band, strict=True), color=style["color"], alpha=0.18, linewidth=0)
    return line


def _limit(axes: Any, curves: list[MeanCurve]) -> None:
    """Limits the axis of losses to those after the first steps."""
    last = max(step for curve in curves for step, _ in _points(curve))
    late = [
        [loss for step, loss in _points(curve) if step >= _CUT * last] or [_points(curve)[-1][1]]
        for curve in curves
    ]
    low, high = min(map(min, late)), max(losses[0] for losses in late)
    margin = 0.04 * (high - low) or 0.05
    axes.set_ylim(low - margin, high + margin)


def _describe(comparison: Comparison) -> tuple[str, str]:
    ends = [
        f"{arm.name} {digits.loss_estimate(arm.causal_loss)[0]}" for arm in comparison.arms.values()
    ]
    description = (
        "Lines: smoothed held-out loss, routed causally, mean over the seeds. Bands: 95% intervals "
        "over seeds. What is higher than the losses after a fifth of the steps is cut off."
    )
    return description, f"Final losses: {', '.join(ends)}."
