"""The figure of the two losses: routed as trained, and causally."""

from typing import Any

from moe_jax.compare.report import digits
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import ArmResult, Comparison, Estimate

NAME = "both_losses"
TITLE = "Final held-out loss: as trained and causal"


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Returns the figure; None if no arm has a finite loss."""
    arms = [a for a in comparison.arms.values() if canvas.finite(a.causal_loss.value, a.loss.value)]
    if not arms:
        return None
    numbers = list(comparison.arms)
    with canvas.styled(NAME):
        drawing, axes = canvas.axes_of(1.75 + 0.36 * len(arms))
        for place, arm in enumerate(reversed(arms)):
            _draw_row(axes, place, arm, canvas.arm_style(numbers.index(arm.name))["color"])
        axes.set_yticks(range(len(arms)), [canvas.label(arm.name, 18) for arm in reversed(arms)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(arms) - 0.4)
        axes.set_xlabel("final loss (nats/token)")
        canvas.legend_of_losses(drawing, axes, ["causal", "as trained"])
        return canvas.save(drawing, NAME, TITLE, _describe(arms))


def _draw_row(axes: Any, place: int, arm: ArmResult, colour: str) -> None:
    axes.plot([arm.loss.value, arm.causal_loss.value], [place, place], ":", color=colour)
    for estimate, shift, fill in ((arm.loss, -0.12, canvas.PAPER), (arm.causal_loss, 0.12, colour)):
        _interval(axes, place + shift, estimate, colour)
        axes.plot(
            [estimate.value],
            [place + shift],
            "o",
            ms=6,
            markerfacecolor=fill,
            markeredgecolor=colour,
        )


def _interval(axes: Any, height: float, estimate: Estimate, colour: str) -> None:
    if canvas.finite(estimate.low, estimate.high):
        axes.plot([estimate.low, estimate.high], [height, height], color=colour, linewidth=1.6)


def _describe(arms: list[ArmResult]) -> tuple[str, str]:
    found = [
        f"{arm.name} {digits.loss_estimate(arm.causal_loss)[0]} causal and "
        f"{digits.loss_estimate(arm.loss)[0]} as trained"
        for arm in arms
    ]
    description = (
        "Filled: routed causally; hollow: routed as trained; lines: 95% intervals over seeds. "
        "The gap mixes access to the future, dropped tokens, and a different number of experts per "
        "token (Health)."
    )
    return description, f"Values: {'; '.join(found)}."
