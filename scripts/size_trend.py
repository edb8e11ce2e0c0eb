"""Compares expert choice, Switch and dense models with GShard at three sizes, from recorded runs.

    python scripts/size_trend.py             writes the table of the page, and its figure
    python scripts/size_trend.py --check     fails if the table is not what would be written

A size is a study of its own, analysed as `moe-jax compare` does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from page_table import write_or_check

from moe_jax.compare.analysis import compare
from moe_jax.compare.records import StudyPlan
from moe_jax.compare.report import digits, units
from moe_jax.compare.report.arms import aa_speed_up
from moe_jax.compare.report.figures import canvas
from moe_jax.compare.results import Comparison, SpeedUp
from moe_jax.compare.results_file import read_records
from moe_jax.errors import UserError

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PAGE = RESULTS / "convergence.md"
BEGIN, END = "<!-- sizes: begin -->", "<!-- sizes: end -->"
RECORDS = {32: "size_32.jsonl", 64: "size_64.jsonl", 128: "study.jsonl"}
ARMS = {
    "ec_batch": "expert choice (batch pool)",
    "switch": "Switch",
    "dense_flops": "dense of equal FLOPs",
}
AA = "GShard itself (A/A)"


def read(name: str) -> Comparison:
    """Returns the comparison of a file of records.

    Raises:
        UserError: if it is not there, or a run of its arms and seeds is missing.
    """
    file = RESULTS / "convergence" / name
    if not file.exists():
        raise UserError(f"there is no {file}: train the study and copy its results.jsonl")
    records = read_records(file)
    plan = next(record for record in reversed(records) if isinstance(record, StudyPlan))
    comparison = compare(plan, records)
    for arm in (plan.baseline, *ARMS):
        if len(comparison.arms[arm].runs) < len(plan.seeds):
            raise UserError(f"{file}: runs of {arm} are missing; go on with the study")
    return comparison


def speed_ups(comparison: Comparison) -> dict[str, SpeedUp]:
    """Returns the speed-ups in steps by what they are of; those of `ARMS`, and A/A."""
    found = {text: units.speed_up(comparison.arms[arm], "steps") for arm, text in ARMS.items()}
    found[AA] = aa_speed_up(comparison)
    return {text: speed_up for text, speed_up in found.items() if speed_up is not None}


def table(sizes: dict[int, Comparison]) -> str:
    """Returns the table in Markdown: a row for each comparison, a column for each size."""
    header = ["over GShard top-2"]
    for width, comparison in sizes.items():
        run = next(iter(comparison.baseline.runs.values()))
        millions, active = run.parameters / 1e6, run.active_parameters / 1e6
        header.append(f"width {width}: {millions:.2f}M parameters, {active:.2f}M active")
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    by_size = [speed_ups(comparison) for comparison in sizes.values()]
    for text in by_size[0]:
        cells = [_text(found[text]) for found in by_size]
        lines.append("| " + " | ".join([text, *cells]) + " |")
    for arm, text in ARMS.items():
        cells = []
        for comparison in sizes.values():
            difference = comparison.arms[arm].difference
            assert difference is not None
            cells.append(" ".join(digits.loss_estimate(difference)))
        lines.append("| " + " | ".join([f"{text}: loss minus GShard's", *cells]) + " |")
    return "\n".join(lines)


def draw(sizes: dict[int, Comparison]) -> canvas.Figure:
    """Returns the figure: speed-ups with their intervals by width."""
    widths = list(sizes)
    by_size = [speed_ups(comparison) for comparison in sizes.values()]
    names = list(by_size[0])
    with canvas.styled("size_trend"):
        drawing, axes = canvas.axes_of(3.2 + canvas.legend_height(names))
        handles, ends = [], [1.0]
        for number, name in enumerate(names):
            style = canvas.arm_style(number)
            shift = 0.14 * (number - (len(names) - 1) / 2)
            found = [speed_up[name].estimate for speed_up in by_size]
            points = [place + shift for place in range(len(widths))]
            (handle,) = axes.plot(points, [e.value for e in found], marker="o", ms=6, **style)
            handles.append(handle)
            for place, estimate in zip(points, found, strict=True):
                ends += _interval(axes, place, estimate.low, estimate.high, style["color"])
        canvas.ratio_axis(axes.yaxis, min(ends), max(ends))
        axes.axhline(1, color=canvas.INK, linewidth=1)
        axes.set_xticks(range(len(widths)), [str(width) for width in widths])
        axes.set_xlabel("width of the model")
        axes.set_ylabel("speed-up in steps")
        canvas.legend(drawing, handles, names)
        description = "Markers: geometric means over seeds; lines: 95% intervals."
        values = "; ".join(
            f"width {width}: {', '.join(f'{name} {_text(found[name])}' for name in names)}"
            for width, found in zip(widths, by_size, strict=True)
        )
        title = "Speed-up in steps over GShard top-2, by the width of the model"
        return canvas.save(drawing, "size_trend", title, (description, values))


def _text(speed_up: SpeedUp) -> str:
    return " ".join(digits.speed_up(speed_up)).strip()


def _interval(
    axes: Any, place: float, low: float | None, high: float | None, colour: str
) -> Sequence[float]:
    """Draws an interval, if there is one; returns its ends."""
    if low is None or high is None:
        return ()
    axes.plot([place, place], [low, high], color=colour, linewidth=1.8)
    return low, high


def main() -> int:
    """Writes the table and the figure, or checks the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    try:
        sizes = {width: read(name) for width, name in RECORDS.items()}
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    if not check:
        (RESULTS / "convergence" / "figures" / "size_trend.svg").write_text(draw(sizes).svg)
    return write_or_check(PAGE, (BEGIN, END), table(sizes), check)


if __name__ == "__main__":
    sys.exit(main())
