"""The status of a run, read from its files only.

No JAX device is used: on a TPU host the devices belong to the run itself.
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

_TREND = 20  # Records over which the trend of the loss is computed.
# The router metrics that tell whether a layer is healthy.
HEALTH_METRICS = ("max_violation", "unrouted_share", "dropped_share", "entropy")


def run_status(directory: str, now: float | None = None) -> dict[str, Any]:
    """Reads the status of a run; unknown values are None.

    Args:
        directory: a run directory; the run may be training, killed, or without a record yet.
        now: seconds since 1970; by default the current time.

    Raises:
        UserError: if it is not a run directory.
    """
    path = epath.Path(directory).expanduser()
    if not any((path / name).exists() for name in (run_directory.RUN_FILE, OWNER_FILE)):
        path = run_directory.find_run(directory)
    return _read_status(path, time.time() if now is None else now)


def _read_status(path: epath.Path, now: float) -> dict[str, Any]:
    facts, records, account = _facts(path), read_metrics(path), read_goodput(path)
    recent = [r for r in records if r["kind"] == "train"][-_TREND:]
    evals = [r for r in records if r["kind"] == "eval"]
    last, attempt = (recent[-1] if recent else {}), account.last_attempt()
    step = max([last.get("step", 0), *(m.step for m in attempt[-1:])])
    steps, tokens = facts["steps"], facts["tokens_per_step"]
    rate = last.get("tokens_per_second") or None
    step_seconds = _seconds_per_step(account) or (tokens / rate if tokens and rate else None)
    seconds_left = (steps - step) * step_seconds if steps and step_seconds else None
    age = max(now - attempt[-1].time, 0.0) if attempt else None
    gaps = sorted(b.time - a.time for a, b in itertools.pairwise(attempt))
    usual = gaps[len(gaps) // 2] if gaps else None
    done, slope = steps is not None and step >= steps, _slope(recent)
    owner = _owner(path, now)
    found: dict[str, Any] = {
        "run": str(path),
        "state": "finished" if done else _state(account, age, usual, owner),
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
        "goodput": account.goodput if attempt else None,
        "seconds": {**account.seconds, "restart": account.restart, "lost": account.lost},
        "attempts": account.attempts,
        "skipped": last.get("skipped_total"),
        "router": _layers(last, facts["moe_every"]),
    }
    found["warnings"] = _warnings(found)
    return found


def _facts(path: epath.Path) -> dict[str, Any]:
    record, config = run_directory.read_record(path), path / run_directory.CONFIG_FILE
    bindings = config_bindings(config.read_text()) if config.exists() else {}
    steps = bindings.get("Train.steps", "")
    steps = bindings.get(steps.removeprefix("%"), steps) if steps.startswith("%") else steps
    every = bindings.get("Model.moe_every", "")
    return {
        "steps": record.get("steps") or (int(steps) if steps.isdecimal() else None),
        "tokens_per_step": record.get("tokens_per_step"),
        "has_padding": record.get("has_padding", False),
        "moe_every": int(every) if every.isdecimal() else 1,
    }


def _owner(path: epath.Path, now: float) -> dict[str, Any] | None:
    """Returns the process that trains there; `alive` is None if it is not visible from here."""
    sign = read_lock(path)
    if sign is None:
        return None
    identity = sign.identity
    return {
        "host": identity.host,
        "process": identity.process,
        "since": sign.since,
        "user": sign.record.get("user"),
        "alive": owner_is_running(sign, path),
        "sign_of_life_age": max(now - sign.time, 0.0),
    }


def _state(
    account: Goodput, age: float | None, usual: float | None, owner: dict[str, Any] | None
) -> str:
    """Classifies a run by the age of its last record and the usual gap between records."""
    if owner is not None and owner["alive"] is False:
        return "killed"
    if age is None:
        return "no record yet" if owner is None else "starting"
    if account.records[-1].ended:
        return "stopped"
    # The first record is followed by compiling, any other perhaps by an evaluation.
    return "running" if age <= max(120.0, 5 * usual if usual else 1800.0) else "silent"


def _seconds_per_step(account: Goodput) -> float | None:
    """Returns the wall time of a step in the latest attempt, without compilation."""
    attempt = account.last_attempt()
    if len(attempt) < 2 or attempt[-1].step <= attempt[0].step + 1:
        return None
    spent = attempt[-1].time - attempt[0].time - attempt[-1].seconds.get("compile", 0.0)
    return max(spent, 0.0) / (attempt[-1].step - attempt[0].step - 1) or None


def _slope(records: list[dict[str, Any]]) -> float | None:
    """Returns the slope of the loss, nats a step, by least squares."""
    points = [(r["step"], r["loss"]) for r in records if r.get("loss") is not None]
    if len({step for step, _ in points}) < 2:
        return None
    x, y = np.asarray(points, float).T
    return float(np.polyfit(x, y, 1)[0])


def _checkpoint(path: epath.Path, now: float) -> dict[str, Any] | None:
    """Returns the last complete checkpoint.

    An incomplete one has a longer name, or on remote storage no `commit_success.txt`.
    """
    directory = path / run_directory.CHECKPOINTS
    names = [p.name for p in directory.iterdir()] if directory.exists() else []
    for step in sorted((int(name) for name in names if name.isdecimal()), reverse=True):
        mark = directory / str(step) / "commit_success.txt"
        if "://" in str(path) and not mark.exists():
            continue
        try:
            written = (directory / str(step)).stat().mtime
        except OSError:  # Removed in between.
            continue
        return {"step": step, "age": max(now - written, 0.0)}
    return None


def _layers(record: dict[str, Any], moe_every: int) -> list[dict[str, Any]]:
    """Returns the health metrics of every mixture-of-experts layer and the limits it exceeds.

    Layers are numbered by their position in the model, from 1.
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


def _warnings(found: dict[str, Any]) -> list[str]:
    warnings = [
        f"router of layer {layer['layer']}: {', '.join(layer['sick'])}"
        for layer in found["router"]
        if layer["sick"]
    ]
    if found["step"] and found["loss"] is None:
        warnings.append("the last loss is not finite or not there")
    if found["skipped"]:
        warnings.append(f"{found['skipped']:g} updates were skipped")
    if found["state"] == "silent":
        lives = found["owner"] is not None and found["owner"]["alive"]
        what = "it hangs, or a step takes that long" if lives else "killed, or it hangs"
        warnings.append(f"no record for {format_duration(found['last_record_age'])}: {what}")
    return warnings
