"""Plots of the curves of several runs in one PNG file."""

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from moe_jax.errors import UserError, nearest
from moe_jax.runs.line_styles import line_style
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.monitoring.goodput import read_goodput
from moe_jax.training.run_directory import run_directory

# The kind of record, the metric and the label of each panel.
PANELS = {
    "loss": ("train", "loss", "training loss (nats/token)"),
    "eval": ("eval", "causal_loss", "held-out causal loss (nats/token)"),
    "speed": ("train", "tokens_per_second", "tokens per second"),
    "balance": ("train", "router/max_violation", "max violation, worst layer"),
}
# Reasons for an empty panel.
_NO_POINT = {
    "nothing": "no step is on record yet (Train.log_every)",
    "loss": "no loss is on record",
    "eval": "no evaluation is on record yet (Train.eval_every, and after the last step)",
    "speed": "it is known from the second step on, and no later one is on record",
    "balance": "no router is on record: the model is dense",
}
_NO_POSITION = {
    "tokens": "run.json does not say how many tokens a step has; draw it by steps",
    "hours": "time.jsonl has no record; draw it by steps",
}
AXES = {"steps": "step", "tokens": "training tokens (millions)", "hours": "hours since the start"}

Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Plot:
    """A plot that was written to a file.

    Attributes:
        path: the PNG file.
        drawn: labels of the runs in each panel.
        missing: for each panel that lacks runs, the reasons by the labels of the runs.
        notes: messages with these reasons, one line per panel.
    """

    path: epath.Path
    drawn: dict[str, list[str]]
    missing: dict[str, dict[str, str]]
    notes: list[str]


def plot(
    directories: Sequence[str],
    output: str,
    panels: Sequence[str] = tuple(PANELS),
    x: str = "steps",
    smoothing: int = 15,
) -> Plot:
    """Plots curves of runs and writes them to a PNG file.

    Args:
        directories: run directories.
        output: path of the PNG file.
        panels: names of panels in `PANELS`.
        x: name of the x axis in `AXES`.
        smoothing: number of records in the moving average of the training loss.

    Raises:
        UserError: for an unknown panel or axis, and if no panel has data.
    """
    choices: list[tuple[str, Iterable[str]]] = [*((name, PANELS) for name in panels), (x, AXES)]
    for name, known in choices:
        if name not in known:
            raise UserError(
                f"cannot plot {name!r}; known: {', '.join(known)}." + nearest(name, known)
            )
    runs = [run_directory.find_run(directory) for directory in directories]
    curves: Curves = {name: {} for name in panels}
    missing: dict[str, dict[str, str]] = {name: {} for name in panels}
    for label, run in zip(_labels(runs), runs, strict=True):
        found, reasons = _curves(run, panels, x)
        for name in panels:
            if name in found:
                curves[name][label] = found[name]
            else:
                missing[name][label] = reasons[name]
    missing = {name: reasons for name, reasons in missing.items() if reasons}
    curves = {name: drawable for name, drawable in curves.items() if drawable}
    notes = [_why(name, reasons, len(runs)) for name, reasons in missing.items()]
    if not curves:
        raise UserError(f"nothing to draw: {'; '.join(notes)}")
    path = epath.Path(output).expanduser()
    drawn = figure(curves, x, smoothing)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            drawn.savefig(file, dpi=150, format="png")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    return Plot(path, {name: list(found) for name, found in curves.items()}, missing, notes)


def _why(name: str, reasons: dict[str, str], runs: int) -> str:
    """Returns the reasons for a panel's missing runs, by run unless all have the same reason."""
    if len(reasons) == runs and len(set(reasons.values())) == 1:
        return f"{name}: {next(iter(reasons.values()))}"
    return f"{name} of " + "; of ".join(f"{label}: {text}" for label, text in reasons.items())


def figure(curves: Curves, x: str, smoothing: int) -> Any:
    """Returns a matplotlib figure with a panel for each item of `curves` and a legend of runs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 1 if len(curves) == 1 else 2
    rows = math.ceil(len(curves) / columns)
    drawn = Figure(figsize=(4.2 * columns, 3.0 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(drawn)
    labels = list(dict.fromkeys(label for found in curves.values() for label in found))
    handles: dict[str, Any] = {}
    for index, (name, found) in enumerate(curves.items()):
        axes = drawn.add_subplot(rows, columns, index + 1)
        for label, (xs, ys) in found.items():
            style: dict[str, Any] = line_style(labels.index(label))
            if name == "loss" and smoothing > 1:
                axes.plot(xs, ys, color=style["color"], alpha=0.25, linewidth=0.8)
                ys = _smooth(ys, smoothing)
            marker = "o" if (len(xs) < 20 and name == "eval") or len(xs) == 1 else None
            (handles[label],) = axes.plot(xs, ys, linewidth=1.6, marker=marker, ms=4, **style)
        axes.set_xlabel(AXES[x], fontsize=10)
        axes.set_ylabel(PANELS[name][2], fontsize=10)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        if name in ("speed", "balance"):
            axes.set_ylim(bottom=0)
            for line in axes.lines:  # Draws lines on the axis in full width.
                line.set_clip_on(False)
    drawn.legend(
        [handles[label] for label in labels],
        labels,
        loc="outside upper center",
        ncols=min(len(labels), 2 * columns),
        frameon=False,
        fontsize=10,
    )
    return drawn


def _labels(runs: Sequence[epath.Path]) -> list[str]:
    """Returns the names of the runs, with the parent directory where names are equal."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{run.parent.name}/{name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _curves(
    run: epath.Path, panels: Sequence[str], x: str
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Returns the curves of a run by panel, and the reasons for panels without a curve."""
    records, position = read_metrics(run), _positions(run, x)
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for name in panels:
        kind, metric, _ = PANELS[name]
        points = [
            (r["step"], float(np.max(np.asarray(r[metric], float))))
            for r in records
            if r["kind"] == kind and r.get(metric) is not None
        ]
        # The first step has no speed yet.
        drawable = [p for p in points if np.isfinite(p[1]) and (name != "speed" or p[1] > 0)]
        if drawable and position is not None:
            steps, values = np.asarray(drawable).T
            found[name] = (position(steps), values)
        elif drawable:
            reasons[name] = _NO_POSITION[x]
        elif points and name != "speed":
            reasons[name] = "no value on record is finite"
        else:
            is_begun = kind == "eval" or any(r["kind"] == kind for r in records)
            reasons[name] = _NO_POINT[name if is_begun else "nothing"]
    return found, reasons


def _positions(run: epath.Path, x: str) -> Any:
    """Returns a function from steps to positions on the x axis; None if there are no records."""
    if x == "steps":
        return lambda steps: steps
    if x == "hours":
        elapsed = read_goodput(run).elapsed()
        if not elapsed:
            return None
        known, seconds = np.asarray(elapsed).T
        return lambda steps: np.interp(steps, known, seconds) / 3600
    path = run / run_directory.RUN_FILE
    tokens = json.loads(path.read_text()).get("tokens_per_step") if path.exists() else None
    return (lambda steps: steps * tokens / 1e6) if tokens else None


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Returns a centred moving average, with a narrower window at the ends."""
    at = np.arange(len(values))
    half = np.minimum(width // 2, np.minimum(at, len(values) - 1 - at))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[at + half + 1] - sums[at - half]) / (2 * half + 1))
