"""The figures of the report, drawn from a comparison alone."""

from moe_jax.compare.report.figures.canvas import Figure
from moe_jax.compare.report.figures.draw import draw_figures

__all__ = ["Figure", "draw_figures"]
