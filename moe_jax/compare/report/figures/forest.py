"""The figure of the speed-ups: one row per arm, with intervals, on a logarithmic axis."""

import dataclasses
from typing import Any

from moe_jax.compare.report import digits, units
from moe_jax.compare.report.arms import aa_speed_up
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import Comparison, Estimate, SpeedUp

NAME = "speed_up"
_AA = "A/A (steps)"


@dataclasses.dataclass(frozen=True)
class _Row:
    name: str
    colour: str
    causal: Estimate
    trained: Estimate | None
    text: str


def draw(comparison: Comparison) -> canvas.Figure | None:
    """Returns the figure; None if no arm has a speed-up."""
    rows = _rows(comparison)
    if not rows:
        return None
    unit = units.name_of(comparison.plan.matched_by)
    with canvas.styled(NAME):
        has_trained = any(row.trained for row in rows)
        height = 0.95 + (0.42 if has_trained else 0.33) * len(rows)
        drawing, axes = canvas.axes_of(height + 0.3 * has_trained)
        for place, row in enumerate(reversed(rows)):
            _draw_row(axes, place, row)
        ends = [end for row in rows for end in _ends(row)]
        canvas.ratio_axis(axes.xaxis, min(ends), max(ends), most=5)
        axes.axvline(1, color=canvas.INK, linewidth=1)
        axes.set_yticks(range(len(rows)), [canvas.label(row.name, 18) for row in reversed(rows)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(f"speed-up in {unit} over {canvas.label(comparison.plan.baseline, 20)}")
        if has_trained:
            names = ["by causal loss", "by loss as trained"]
            canvas.legend_of_losses(drawing, axes, names)
        title = f"Speed-up in {unit} over {comparison.plan.baseline}"
        return canvas.save(drawing, NAME, title, _describe(rows))


def _rows(comparison: Comparison) -> list[_Row]:
    matched_by, rows = comparison.plan.matched_by, []
    for number, arm in enumerate(comparison.arms.values()):
        causal = units.speed_up(arm, matched_by)
        trained = units.speed_up(arm, matched_by, is_causal=False)
        if causal is not None and _is_shown(causal):
            shown = None if arm.is_causal or trained is None else trained.estimate
            colour = canvas.arm_style(number)["color"]
            rows.append(_Row(arm.name, colour, causal.estimate, shown, _text(causal)))
    same = aa_speed_up(comparison)
    if same is not None and _is_shown(same):
        rows.append(_Row(_AA, canvas.INK, same.estimate, None, _text(same)))
    return rows


def _is_shown(found: SpeedUp) -> bool:
    return found.bound != "neither" and canvas.finite(found.estimate.value)


def _text(found: SpeedUp) -> str:
    return " ".join(digits.speed_up(found)).strip()


def _ends(row: _Row) -> list[float]:
    found = [row.causal.value, row.causal.low, row.causal.high]
    found += [row.trained.value] if row.trained else []
    return [end for end in found if end is not None and canvas.finite(end) and end > 0]


def _draw_row(axes: Any, place: int, row: _Row) -> None:
    is_double = row.trained is not None and canvas.finite(row.trained.value)
    height = place + 0.14 * is_double
    if canvas.finite(row.causal.low, row.causal.high):
        ends = [row.causal.low, row.causal.high]
        axes.plot(ends, [height, height], color=row.colour, linewidth=2)
    axes.plot([row.causal.value], [height], "o", ms=7, color=row.colour)
    if row.trained is not None and is_double:
        axes.plot(
            [row.trained.value],
            [place - 0.14],
            marker="o",
            ms=7,
            markerfacecolor=canvas.PAPER,
            markeredgecolor=row.colour,
        )
    axes.annotate(
        row.text,
        (1.02, height),
        xycoords=("axes fraction", "data"),
        va="center",
        fontsize=8.5,
    )


def _describe(rows: list[_Row]) -> tuple[str, str]:
    found = [f"{row.name} {row.text}" for row in rows]
    text = (
        "Filled: speed-up by the causal loss, with the 95% interval over seeds, on a logarithmic "
        "axis. Right of the line at 1 the arm needs less."
    )
    if any(row.trained for row in rows):
        text += " Hollow: by the loss as trained, for arms that see the future in training."
    if any(row.name == _AA for row in rows):
        text += " A/A: the baseline over itself, in steps; its interval should contain 1."
    return text, f"Values: {', '.join(found)}."
