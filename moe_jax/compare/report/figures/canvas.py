"""What all figures share: size, letters, colours, and the same bytes for the same contents."""

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

from moe_jax.formatting import printable
from moe_jax.runs.line_styles import COLOURS, line_style

# In inches. Small, so that the letters can be read at the width of a telephone.
WIDTH = 4.8
# Each stands for one colour of the page: `inline_svg` replaces them by those of its theme.
INK, FAINT, PAPER = "#1a1a1b", "#c9c9ca", "#fefefe"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Ratios at which an axis may have a tick, the most important ones first.
_TICKS = (
    (1.0,),
    (0.1, 10.0, 100.0),
    (0.5, 2.0, 0.2, 5.0),
    (0.7, 1.5, 0.3, 3.0),
    (0.8, 0.9, 1.1, 1.2, 0.6, 1.3, 1.4, 1.7),
    (0.85, 0.95, 1.05, 1.15),
    (0.97, 0.98, 0.99, 1.01, 1.02, 1.03),
)
_STYLE = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.labelsize": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.unicode_minus": False,
    "figure.facecolor": PAPER,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.labelcolor": INK,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: its file name without ending.
        title: what it shows.
        description: how to read it.
        values: what there is to see, in words, for those who do not see it.
        svg: the figure on a white background.
        png: the same, at 200 pixels per inch.
    """

    name: str
    title: str
    description: str
    values: str
    svg: str
    png: bytes


@contextlib.contextmanager
def styled(name: str) -> Iterator[None]:
    """Sets the style of a figure, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", {**_STYLE, "svg.hashsalt": name}]):
        yield


def axes_of(height: float) -> tuple[Any, Any]:
    """Returns a figure with one pair of axes."""
    drawing, panels = panels_of([height])
    return drawing, panels[0]


def panels_of(heights: Sequence[float], legend: float = 0.0) -> tuple[Any, Sequence[Any]]:
    """Returns a figure with axes below each other that share the horizontal axis.

    Args:
        heights: heights of the axes in inches, from the top.
        legend: height of the legend in inches.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=(WIDTH, sum(heights) + legend), layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)
    return drawing, list(panels[:, 0])


def save(drawing: Any, name: str, title: str, texts: Sequence[str]) -> Figure:
    """Returns a drawn figure with its description and values; equal ones give equal bytes."""
    svg, png = io.StringIO(), io.BytesIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    drawing.savefig(svg, format="svg", metadata=nothing)
    drawing.savefig(png, format="png", dpi=200, metadata={"Software": None})
    # Control characters may not occur in SVG.
    title, description, values = map(printable, (title, *texts))
    return Figure(name, title, description, values, svg.getvalue(), png.getvalue())


def arm_style(number: int) -> dict[str, str]:
    """Returns colour and line style of an arm, by its place in the plan; black is that of INK."""
    style = line_style(number)
    return {**style, "color": INK if style["color"] == COLOURS[-1] else style["color"]}


def label(name: str, most: int = 26) -> str:
    """Returns a name as a label: printable, and cut if it is long."""
    text = printable(name)
    return text if len(text) <= most else text[: most - 1] + "…"


def legend_height(names: Sequence[str]) -> float:
    """Returns the height in inches that a legend takes."""
    return 0.19 * math.ceil(len(names) / _columns(names)) + 0.1


def _columns(names: Sequence[str]) -> int:
    longest = max(len(label(name)) for name in names)
    return min(len(names), max(1, 58 // (longest + 6)))


def legend(drawing: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Draws a legend below the axes, with as many columns as the names leave room for."""
    columns = _columns(names)
    drawn = drawing.legend(handles, [" "] * len(names), loc="outside lower center", ncols=columns)
    # Set afterwards: matplotlib drops labels that begin with an underscore.
    for text, name in zip(drawn.get_texts(), names, strict=True):
        text.set_text(label(name))


def legend_of_losses(drawing: Any, axes: Any, names: Sequence[str]) -> None:
    """Draws the legend of filled markers (causal) and hollow ones (as trained)."""
    style = {"color": INK, "linestyle": "none", "marker": "o", "ms": 6}
    (causal,) = axes.plot([], [], **style)
    (trained,) = axes.plot([], [], markerfacecolor=PAPER, **style)
    legend(drawing, [causal, trained], names)


def ratio_axis(axis: Any, low: float, high: float, most: int = 7) -> None:
    """Makes an axis logarithmic, with all of `low`, `high` and 1 on it and at most `most` ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(low, 0.97), max(high, 1.03)
    margin = (high / low) ** 0.06
    low, high = low / margin, high * margin
    (axis.axes.set_xscale if axis.axis_name == "x" else axis.axes.set_yscale)("log")
    (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(low, high)
    ticks: list[float] = []
    for level in _TICKS:
        for tick in level:
            least = (high / low) ** (0.8 / most)
            is_free = all(max(tick / t, t / tick) >= least for t in ticks)
            if low <= tick <= high and is_free and len(ticks) < most:
                ticks.append(tick)
    axis.set_major_locator(FixedLocator(sorted(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))


def finite(*values: float | None) -> bool:
    """Returns True if all values are there and finite."""
    return all(value is not None and math.isfinite(value) for value in values)
