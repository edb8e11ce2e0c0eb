"""What was trained: model, data, optimiser and lengths of the runs, and where the arms differ."""

from collections.abc import Callable, Iterable, Sequence

from moe_jax.compare.fingerprints import decides
from moe_jax.compare.records import RunRecord
from moe_jax.compare.report import digits
from moe_jax.compare.report.table import Cell, Table
from moe_jax.compare.results import Comparison

# Settings of the model and the data, by what they are called.
_NAMES = {
    "layers": "Model.num_layers",
    "layers with experts: one in": "Model.moe_every",
    "width (d_model)": "Model.d_model",
    "feed-forward width (d_ff)": "Model.d_ff",
    "experts": "Model.num_experts",
    "attention heads": "Model.num_heads",
    "batch (sequences)": "Data.batch_size",
    "sequence length": "Data.sequence_length",
    "task": "Data.task",
    "vocabulary": "Data.vocabulary",
}
# The table of arms has the router; the total of the schedule follows from the steps.
_NOT_SAID = ("Experiment.router", "Train.seed", "Data.seed", "router.name", "router.pool")
_FOLLOWS = ".total_steps"
_ROUTER = "router."
_NOTHING = "nothing else"


def setup_table(comparison: Comparison) -> Table:
    """Returns what the runs have in common; where they differ, all values."""
    runs = [run for arm in comparison.arms.values() for run in arm.runs.values()]
    found: dict[str, Callable[[RunRecord], str]] = {
        label: _setting(name) for label, name in _NAMES.items()
    }
    found |= {
        "steps": lambda run: f"{run.planned_steps:,}",
        "training tokens of a run": lambda run: digits.steps(
            run.planned_steps * run.tokens_per_step
        ),
        "held-out tokens": lambda run: f"{run.eval_tokens:,}",
        "evaluations of a run": lambda run: f"{len(run.curve.steps):,}",
    }
    rows = []
    for label, of in found.items():
        values = _distinct(map(of, runs))
        if values:
            note = "differs between runs" if len(values) > 1 else ""
            rows.append((Cell(label), Cell("; ".join(values), note)))
    rows += [
        (Cell("optimiser"), Cell(_components(runs, lambda run: "Experiment.optimizer"))),
        (Cell("learning rate"), Cell(_components(runs, _rate_name))),
        *_totals(comparison),
    ]
    return Table("Model, data and training", ("what", "value"), tuple(rows), is_text=True)


def _totals(comparison: Comparison) -> list[tuple[Cell, Cell]]:
    """Returns the length of the trials, and the tokens and wall time of all runs on record."""
    runs = list(comparison.all_runs)
    note = "trials, A/A and runs left out are counted"
    if not runs:
        arms = [*comparison.arms.values(), *([comparison.aa] if comparison.aa else [])]
        runs = [run for arm in arms for run in arm.runs.values()]
        note = "of the comparison and A/A"
    trials = [run for run in runs if run.role == "rate_trial"]
    rows = []
    if trials:
        steps = "; ".join(_distinct(f"{run.planned_steps:,}" for run in trials))
        rows.append((Cell("learning-rate trials"), Cell(f"{len(trials)} runs of {steps} steps")))
    tokens = sum(run.last_step * run.tokens_per_step for run in runs)
    rows.append((Cell("all runs"), Cell(f"{len(runs)}", note)))
    rows.append((Cell("training tokens of all runs"), Cell(digits.steps(tokens))))
    times = [run.wall_seconds for run in runs if run.wall_seconds is not None]
    if times:
        missing = len(runs) - len(times)
        known = f"without {missing} runs whose time is not on record" if missing else ""
        rows.append(
            (Cell("wall time of all runs, added"), Cell(digits.duration(sum(times)), known))
        )
    return rows


def differences_table(comparison: Comparison) -> Table | None:
    """Returns the settings of each arm that others do not share; None if there are none."""
    arms = {name: arm for name, arm in comparison.arms.items() if arm.runs}
    settings = {name: _deciding(next(iter(arm.runs.values()))) for name, arm in arms.items()}
    values: dict[str, list[str]] = {}
    for found in settings.values():
        for key, value in found.items():
            values.setdefault(key, []).append(value)
    rows = []
    for name, found in settings.items():
        own = [
            f"{key.removeprefix(_ROUTER)} = {value}"
            for key, value in found.items()
            if len(values[key]) == 1 or len(set(values[key])) > 1
        ]
        runs = arms[name].runs.values()
        pools = ", ".join(_distinct(run.pool for run in runs))
        router = Cell("; ".join(_distinct(run.router for run in runs)), pools and f"pool: {pools}")
        rows.append((Cell(name), router, Cell("; ".join(own) or _NOTHING)))
    if all(row[2].text == _NOTHING for row in rows):
        return None
    columns = ("arm", "router", "settings")
    return Table("Settings in which the arms differ", columns, tuple(rows), is_text=True)


def _deciding(run: RunRecord) -> dict[str, str]:
    """Returns the settings that decide what is computed; those of the router as `router.k`."""
    component = run.settings.get("Experiment.router", "").strip("@()")
    renamed = {
        f"{_ROUTER}{name.removeprefix(f'{component}.')}"
        if component and name.startswith(f"{component}.")
        else name: value
        for name, value in run.settings.items()
        if decides(name)
    }
    return {
        name: value
        for name, value in renamed.items()
        if name not in _NOT_SAID and not name.endswith(_FOLLOWS)
    }


def _setting(name: str) -> Callable[[RunRecord], str]:
    return lambda run: run.settings.get(name, "").strip("'\"@()")


def _rate_name(run: RunRecord) -> str:
    optimizer = run.settings.get("Experiment.optimizer", "").strip("@()")
    return f"{optimizer}.learning_rate"


def _components(runs: Sequence[RunRecord], name_of: Callable[[RunRecord], str]) -> str:
    """Returns the components of runs with their settings, such as `AdamW (b1 = 0.9, b2 = 0.95)`.

    Values that differ between runs are all listed, as in `peak = 0.002 / 0.004`.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        component = run.settings.get(name_of(run), "").strip("@()")
        items = found.setdefault(component, {})
        for key, value in run.settings.items():
            owner, _, name = key.partition(".")
            is_said = name != "learning_rate" and not key.endswith(_FOLLOWS) and value != "None"
            if owner == component and is_said and value not in items.setdefault(name, []):
                items[name].append(value)
    texts = []
    for component, items in found.items():
        said = ", ".join(f"{name} = {' / '.join(values)}" for name, values in items.items())
        texts.append(f"{component} ({said})" if said else component)
    return "; ".join(text for text in texts if text) or "not on record"


def _distinct(values: Iterable[str]) -> Sequence[str]:
    return list(dict.fromkeys(value for value in values if value))
