"""The figure of the speed-up in steps as a function of the loss."""

from typing import Any

from moe_jax.compare.report import digits
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
            assert arm.speed_up_curve is not None
            style = canvas.arm_style(numbers.index(arm.name))
            handles.append(_line(axes, arm.speed_up_curve, style))
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


def _line(axes: Any, curve: SpeedUpCurve, style: dict[str, str]) -> Any:
    points = _points(curve)
    marker = "o" if len(points) == 1 else None
    (line,) = axes.plot(*zip(*points, strict=True), linewidth=1.6, marker=marker, **style)
    band = [
        (loss, low, high)
        for loss, low, high in zip(curve.losses, curve.low, curve.high, strict=True)
        if low is not None and canvas.finite(loss, low, high) and low > 0
    ]
    if band:
        axes.fill_between(*zip(*band, strict=True), color=style["color"], alpha=0.15, linewidth=0)
    return line


def _describe(arms: list[ArmResult]) -> tuple[str, str]:
    ends = []
    for arm in arms:
        loss, value = _points(arm.speed_up_curve)[-1]
        ends.append(f"{arm.name} {digits.ratio(value)} at {digits.loss(loss)}")
    description = (
        "Lines: geometric mean over the pairs that reach the loss in both runs; bands: 95% "
        "intervals, which may go beyond the axis. High losses, early in training, are at the left."
    )
    return description, f"At the lowest loss: {', '.join(ends)}."
