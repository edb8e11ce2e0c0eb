"""Read a run directory into the record of a run. No JAX device is used."""

import ast
import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from moe_jax.compare.fingerprints import fingerprint, resolved_settings
from moe_jax.compare.records import Role, RunRecord
from moe_jax.compare.run_config import describe_model, load_experiment
from moe_jax.compare.run_metrics import RunMetrics, summarise
from moe_jax.errors import UserError
from moe_jax.run_files import CONFIG_FILE, RUN_FILE
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE, read_metrics
from moe_jax.training.monitoring.goodput import read_goodput

# Of longer runs, means over training records are means over a part of them.
_MOST_TRAINING = 4000
# What reading a damaged file may raise.
_BROKEN = (OSError, ValueError, ArithmeticError, RecursionError)
_ENVIRONMENT = ("moe_jax", "commit", "python", "packages", "devices", "mesh", "environment")


def read_run(
    directory: str | epath.Path,
    arm: str | None = None,
    role: Role = "comparison",
    command: str = "",
) -> RunRecord:
    """Reads the record of a run from its directory; the run may be unfinished.

    The fingerprint is that of the settings alone, so that it is known before the run begins.

    Args:
        directory: the run directory.
        arm: name of its arm; None for the name of the directory.
        role: what the run is for.
        command: the command line that trains it.

    Raises:
        UserError: if it is not a run directory, or a file in it is missing or has other contents
            than a run's; in one line.
    """
    directory = epath.Path(directory).expanduser()
    try:
        return _read_run(directory, arm, role, command)
    except _BROKEN as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{directory} cannot be read as a run: {reason}") from None


def _read_run(directory: epath.Path, arm: str | None, role: Role, command: str) -> RunRecord:
    config, facts = _read_text(directory / CONFIG_FILE), _read_facts(directory / RUN_FILE)
    settings = resolved_settings(config)
    metrics = _read_metrics(directory)
    experiment = load_experiment(directory / CONFIG_FILE, settings)
    model = describe_model(experiment, metrics.mean_experts)
    steps, data = experiment.train.steps, experiment.data
    return RunRecord(
        arm=directory.name if arm is None else arm,
        name=directory.name,
        role=role,
        seed=experiment.train.seed,
        data_seed=data.seed,
        learning_rate=learning_rate(settings),
        fingerprint=fingerprint(settings),
        planned_steps=steps,
        outcome=metrics.outcome(_last_step(facts, steps), experiment.guard.limit),
        curve=metrics.curve,
        tokens_per_step=data.batch_size * data.sequence_length,
        eval_tokens=metrics.eval_tokens,
        health=metrics.health,
        settings=settings,
        data=_data(settings, facts),
        environment={name: facts[name] for name in _ENVIRONMENT if facts.get(name)},
        command=command,
        wall_seconds=_wall_seconds(directory),
        **vars(model),
    )


def _last_step(facts: Mapping[str, Any], planned_steps: int) -> int:
    """Returns the step after which a run ends: `Train.steps`, or that of its early stop."""
    stop = facts.get("early_stop")
    step = stop.get("step") if isinstance(stop, dict) else None
    return min(step, planned_steps) if type(step) is int else planned_steps


def _wall_seconds(directory: epath.Path) -> float | None:
    """Returns the wall time of all attempts; None if `time.jsonl` does not say it."""
    try:
        wall = read_goodput(directory).wall
    except _BROKEN:
        return None
    return wall if 0 < wall < math.inf else None


def learning_rate(settings: Mapping[str, str]) -> float | None:
    """Returns the peak of the learning rate; None if the schedule has none.

    The optimizer's setting `learning_rate` is a number, or a schedule with a setting `peak`.
    """
    optimizer = _referred(settings.get("Experiment.optimizer", ""))
    value = settings.get(f"{optimizer}.learning_rate", "")
    if value.startswith("@"):
        value = settings.get(f"{_referred(value)}.peak", "")
    try:
        rate = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return float(rate) if type(rate) in (int, float) else None


def _referred(value: str) -> str:
    """Returns X of the gin reference `@X()`."""
    return value.removeprefix("@").removesuffix("()")


def _read_text(path: epath.Path) -> str:
    if not path.parent.exists():
        raise UserError(f"there is no run directory {path.parent}")
    try:
        return str(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path.parent} is not a run directory: it has no {path.name}; give the --output_dir "
            "of `moe-jax train`"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a file of a run: it is not UTF-8 text") from None


def _read_facts(path: epath.Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{path} is not that of a run: it is not a JSON object")
    return facts


def _read_metrics(directory: epath.Path) -> RunMetrics:
    path = directory / METRICS_FILE
    if not path.exists():
        raise UserError(f"{directory} has no {METRICS_FILE}: no step of the run is on record")
    try:
        return summarise(read_metrics(directory, _MOST_TRAINING))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):  # Of UTF-8, or of JSON nested too deeply.
        raise UserError(f"{path} is not that of a run: it is not lines of JSON") from None


def _data(settings: Mapping[str, str], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the task, the vocabulary, and the digests of the user's files by task.

    A `vocabulary_digest` is there if the run has recorded one.
    """
    files, vocabulary = facts.get("data"), facts.get("vocabulary_digest")
    digests = {
        task: entry["digest"]
        for task, entry in (files.items() if isinstance(files, dict) else ())
        if isinstance(entry, dict) and isinstance(entry.get("digest"), str)
    }
    return {
        "task": settings.get("Data.task", ""),
        "vocabulary": settings.get("Data.vocabulary", ""),
        "digests": digests,
        **({"vocabulary_digest": vocabulary} if isinstance(vocabulary, str) else {}),
    }
