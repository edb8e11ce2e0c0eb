"""The status of a run, read from its files.

No JAX device is used: on a TPU host the devices are in use by the run.
"""

import itertools
import math
import time
from typing import Any

import numpy as np
from etils import epath

from moe_jax.sharding.processes import config_bindings
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.monitoring.goodput import Goodput, read_goodput
from moe_jax.training.monitoring.progress import format_duration
from moe_jax.training.run_directory import run_directory
from moe_jax.training.run_directory.lock_file import OWNER_FILE, owner_is_running, read_lock

_TREND = 20  # Number of records for the trend of the loss.
# The router metrics for the health of a layer.
HEALTH_METRICS = ("max_violation", "unrouted_share", "dropped_share", "entropy")


def run_status(directory: str, now: float | None = None) -> dict[str, Any]:
    """Reads the status of a run; unknown values are None.

    Args:
        directory: a run directory; the run may be training, killed, or without records.
        now: seconds since 1970; by default the current time.

    Raises:
        UserError: if the directory is not a run directory.
    """
    path = epath.Path(directory).expanduser()
    if not any((path / name).exists() for name in (run_directory.RUN_FILE, OWNER_FILE)):
        path = run_directory.find_run(directory)
    return _read_status(path, time.time() if now is None else now)


def _read_status(path: epath.Path, now: float) -> dict[str, Any]:
    facts, records, goodput = _facts(path), read_metrics(path), read_goodput(path)
    recent = [r for r in records if r["kind"] == "train"][-_TREND:]
    evals = [r for r in records if r["kind"] == "eval"]
    last, attempt = (recent[-1] if recent else {}), goodput.last_attempt()
    step = max([last.get("step", 0), *(m.step for m in attempt[-1:])])
    steps, tokens = facts["steps"], facts["tokens_per_step"]
    rate = last.get("tokens_per_second") or None
    step_seconds = _seconds_per_step(goodput) or (tokens / rate if tokens and rate else None)
    seconds_left = (steps - step) * step_seconds if steps and step_seconds else None
    age = max(now - attempt[-1].time, 0.0) if attempt else None
    gaps = sorted(b.time - a.time for a, b in itertools.pairwise(attempt))
    usual = gaps[len(gaps) // 2] if gaps else None
    done, slope = steps is not None and step >= steps, _slope(recent)
    owner = _owner(path, now)
    status: dict[str, Any] = {
        "run": str(path),
        "state": "finished" if done else _state(goodput, age, usual, owner),
        "owner": owner,
        "step": step,
        "steps": steps,
        "last_record_age": age,
        "usual_record_gap": usual,
        "loss": last.get("loss"),
        "loss_per_1000_steps": None if slope is None else slope * 1000,
        "trend_steps": recent[-1]["step"] - recent[0]["step"] if recent else 0,
        "tokens_per_second": rate,
        "utilisation": last.get("utilisation"),
        "tokens_seen": step * tokens if tokens else None,
        "has_padding": facts["has_padding"],
        "seconds_left": 0.0 if done else seconds_left,
        "evaluation": evals[-1] if evals else None,
        "checkpoint": _checkpoint(path, now),
        "goodput": goodput.goodput if attempt else None,
        "seconds": {**goodput.seconds, "restart": goodput.restart, "lost": goodput.lost},
        "attempts": goodput.attempts,
        "skipped": last.get("skipped_total"),
        "router": _layers(last, facts["moe_every"]),
    }
    status["warnings"] = _warnings(status)
    return status


def _facts(path: epath.Path) -> dict[str, Any]:
    record, config = run_directory.read_record(path), path / run_directory.CONFIG_FILE
    bindings = config_bindings(config.read_text()) if config.exists() else {}
    steps = bindings.get("Train.steps", "")
    steps = bindings.get(steps.removeprefix("%"), steps) if steps.startswith("%") else steps
    every = bindings.get("Model.moe_every", "")
    stopped = record.get("early_stop") or {}
    return {
        "steps": stopped.get("step")
        or record.get("steps")
        or (int(steps) if steps.isdecimal() else None),
        "tokens_per_step": record.get("tokens_per_step"),
        "has_padding": record.get("has_padding", False),
        "moe_every": int(every) if every.isdecimal() else 1,
    }


def _owner(path: epath.Path, now: float) -> dict[str, Any] | None:
    """Returns the process that trains the run; `alive` is None if it cannot be observed."""
    lock = read_lock(path)
    if lock is None:
        return None
    identity = lock.identity
    return {
        "host": identity.host,
        "process": identity.process,
        "since": lock.since,
        "user": lock.record.get("user"),
        "alive": owner_is_running(lock, path),
        "sign_of_life_age": max(now - lock.time, 0.0),
    }


def _state(
    goodput: Goodput, age: float | None, usual: float | None, owner: dict[str, Any] | None
) -> str:
    """Classifies a run by the age of its last record and the usual gap between records."""
    if owner is not None and owner["alive"] is False:
        return "killed"
    if age is None:
        return "no record yet" if owner is None else "starting"
    if goodput.records[-1].ended:
        return "stopped"
    # Compilation follows the first record, and an evaluation may follow any other.
    return "running" if age <= max(120.0, 5 * usual if usual else 1800.0) else "silent"


def _seconds_per_step(goodput: Goodput) -> float | None:
    """Returns the wall time per step in the latest attempt, without compilation."""
    attempt = goodput.last_attempt()
    if len(attempt) < 2 or attempt[-1].step <= attempt[0].step + 1:
        return None
    spent = attempt[-1].time - attempt[0].time - attempt[-1].seconds.get("compile", 0.0)
    return max(spent, 0.0) / (attempt[-1].step - attempt[0].step - 1) or None


def _slope(records: list[dict[str, Any]]) -> float | None:
    """Returns the slope of the loss in nats per step, by least squares."""
    points = [(r["step"], r["loss"]) for r in records if r.get("loss") is not None]
    if len({step for step, _ in points}) < 2:
        return None
    x, y = np.asarray(points, float).T
    return float(np.polyfit(x, y, 1)[0])


def _checkpoint(path: epath.Path, now: float) -> dict[str, Any] | None:
    """Returns the latest complete checkpoint.

    An incomplete checkpoint has a longer name or, on remote storage, no `commit_success.txt`.
    """
    directory = path / run_directory.CHECKPOINTS
    names = [p.name for p in directory.iterdir()] if directory.exists() else []
    for step in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        commit_file = directory / str(step) / "commit_success.txt"
        if "://" in str(path) and not commit_file.exists():
            continue
        try:
            written = (directory / str(step)).stat().mtime
        except OSError:  # Removed in the meantime.
            continue
        return {"step": step, "age": max(now - written, 0.0)}
    return None


def _layers(record: dict[str, Any], moe_every: int) -> list[dict[str, Any]]:
    """Returns the health metrics of every mixture-of-experts layer and the limits it exceeds.

    Layers are numbered by their position in the model, starting at 1.
    """
    columns = {n: record[f"router/{n}"] for n in HEALTH_METRICS if f"router/{n}" in record}
    load = record.get("router/load") or [[]]
    layers = []
    for index in range(max((len(c) for c in columns.values()), default=0)):
        layer: dict[str, Any] = {name: column[index] for name, column in columns.items()}
        layer = {"layer": 1 + index * moe_every, **layer}
        uniform = math.log(max(len(load[0]), 1))
        entropy = layer.get("entropy")
        reasons = {
            "max_violation > 1": (layer.get("max_violation") or 0.0) > 1,
            "dropped_share > 0.05": (layer.get("dropped_share") or 0.0) > 0.05,
            "entropy < 0.1 ln E": entropy is not None and entropy < 0.1 * uniform,
        }
        layers.append({**layer, "sick": [reason for reason, holds in reasons.items() if holds]})
    return layers


def _warnings(status: dict[str, Any]) -> list[str]:
    warnings = [
        f"router of layer {layer['layer']}: {', '.join(layer['sick'])}"
        for layer in status["router"]
        if layer["sick"]
    ]
    if status["step"] and status["loss"] is None:
        warnings.append("the last loss is not finite or not there")
    if status["skipped"]:
        warnings.append(f"{status['skipped']:g} updates were skipped")
    if status["state"] == "silent":
        is_alive = status["owner"] is not None and status["owner"]["alive"]
        reason = "it hangs, or a step takes that long" if is_alive else "killed, or it hangs"
        warnings.append(f"no record for {format_duration(status['last_record_age'])}: {reason}")
    return warnings
