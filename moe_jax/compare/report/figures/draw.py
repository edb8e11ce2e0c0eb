"""All figures of a report."""

from moe_jax.compare.report.figures import both_losses, forest, loss_curves, speed_up_curves
from moe_jax.compare.report.figures.canvas import Figure
from moe_jax.compare.results import Comparison

_FIGURES = (loss_curves, forest, speed_up_curves, both_losses)


def draw_figures(comparison: Comparison) -> tuple[Figure, ...]:
    """Returns the figures that the comparison has values for."""
    drawn = [figure.draw(comparison) for figure in _FIGURES]
    return tuple(figure for figure in drawn if figure is not None)
