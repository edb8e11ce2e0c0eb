"""`moe-jax status`: where a run stands, from its files only.

JAX's devices are left alone: on a TPU host they belong to the run that is looked at.
"""

import itertools
import math
import time
from typing import Any

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax.commands.console import make_console
from moe_jax.formatting import count
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.metric_writers.jsonl_writer import read_metrics
from moe_jax.training.monitoring.goodput import Goodput, read_goodput
from moe_jax.training.monitoring.progress import format_duration, format_throughput
from moe_jax.training.run_directory import run_directory
from moe_jax.training.run_directory.lock_file import OWNER_FILE, owner_is_running, read_lock

_TREND = 20  # Records that the trend of the loss is taken over.
_HEALTH = ("max_violation", "unrouted_share", "dropped_share", "entropy")


def status(directory: str, now: float | None = None) -> dict[str, Any]:
    """Prints where a run stands, and returns it.

    Args:
        directory: a run directory; the run may be going, killed, or without a record yet.
        now: seconds since 1970, by default the time.

    Raises:
        UserError: if it is no run directory.
    """
    path = epath.Path(directory).expanduser()
    if not any((path / name).exists() for name in (run_directory.RUN_FILE, OWNER_FILE)):
        path = run_directory.find_run(directory)
    found = standing(path, time.time() if now is None else now)
    _show(make_console(), found)
    return found


def standing(path: epath.Path, now: float) -> dict[str, Any]:
    """Returns where a run stands; what is not known is None."""
    facts, records, account = _facts(path), read_metrics(path), read_goodput(path)
    recent = [r for r in records if r["kind"] == "train"][-_TREND:]
    evals = [r for r in records if r["kind"] == "eval"]
    last, attempt = (recent[-1] if recent else {}), account.last_attempt()
    step = max([last.get("step", 0), *(m.step for m in attempt[-1:])])
    steps, tokens = facts["steps"], facts["tokens_per_step"]
    rate = last.get("tokens_per_second") or None
    pace = _seconds_per_step(account) or (tokens / rate if tokens and rate else None)
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
        "seconds_left": 0.0 if done else (steps - step) * pace if steps and pace else None,
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
    """Returns who trains there; `alive` is None where that cannot be seen from here."""
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
    """Says whether a run goes on, by how long ago its last record is and how often they come."""
    if owner is not None and owner["alive"] is False:
        return "killed"
    if age is None:
        return "no record yet" if owner is None else "starting"
    if account.records[-1].ended:
        return "stopped"
    # The first record is followed by compiling, any other perhaps by an evaluation.
    return "running" if age <= max(120.0, 5 * usual if usual else 1800.0) else "silent"


def _seconds_per_step(account: Goodput) -> float | None:
    """Returns the pace of the latest attempt, all included but compiling."""
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
    """Returns the last complete checkpoint: an incomplete one has a longer name, or no mark."""
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
    """Returns the health of every mixture-of-experts layer, and why it looks sick.

    Layers have their number in the model, from 1.
    """
    columns = {n: record[f"router/{n}"] for n in _HEALTH if f"router/{n}" in record}
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


def _show(console: Console, found: dict[str, Any]) -> None:
    table = Table(title=found["run"], title_justify="left", show_header=False)
    for name, text in _rows(found):
        table.add_row(name, text)
    console.print(table)
    if found["router"]:
        names = [name for name in _HEALTH if name in found["router"][0]]
        heads = [name.replace("_", " ") for name in names]
        title = "Routers, by the number of their layer in the model"
        table = Table("layer", *heads, "looks sick", title=title, title_justify="left")
        for layer in found["router"]:
            values = ["-" if layer[n] is None else f"{layer[n]:.3f}" for n in names]
            style = "bold red" if layer["sick"] else None
            table.add_row(str(layer["layer"]), *values, ", ".join(layer["sick"]), style=style)
        console.print(table)
    for warning in found["warnings"]:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)


def _owner_in_words(owner: dict[str, Any]) -> str:
    life = {
        True: "runs",
        False: "does not run any more: the next start takes over",
        None: f"last sign of life {format_duration(owner['sign_of_life_age'])} ago",
    }[owner["alive"]]
    return f"process {owner['process']} on {owner['host']} since {owner['since']}: {life}"


def _rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns what is known, in words."""
    age, left, trend = found["last_record_age"], found["seconds_left"], found["loss_per_1000_steps"]
    rows = [
        ("state", found["state"] + (f", last record {format_duration(age)} ago" if age else ""))
    ]
    if (owner := found["owner"]) is not None:
        rows.append(("trains there", _owner_in_words(owner)))
    of = f" of {found['steps']:,}" if found["steps"] else ""
    rows.append(("step", f"{found['step']:,}{of}"))
    if found["loss"] is not None:
        change, span = "", found["trend_steps"]
        if trend is not None:
            change = f", {trend * span / 1000:+.4f} in the last {span:,} steps"
        rows.append(("loss", f"{found['loss']:.4f}{change}"))
    if found["tokens_per_second"]:
        padding = " (without padding)" if found["has_padding"] else ""
        rows.append(("speed", format_throughput(found["tokens_per_second"]) + padding))
    if found["tokens_seen"]:
        padding = " (padding included)" if found["has_padding"] else ""
        rows.append(("tokens seen", count(found["tokens_seen"]) + padding))
    if left:
        rows.append(("time left", format_duration(left)))
    if (figures := found["evaluation"]) is not None:
        shown = ", ".join(
            f"{n} " + ("not finite" if figures[n] is None else f"{figures[n]:.4f}")
            for n in ("loss", "causal_loss")
            if n in figures
        )
        rows.append(("last evaluation", f"step {figures['step']:,}: {shown.replace('_', ' ')}"))
    if (saved := found["checkpoint"]) is not None:
        rows.append(
            ("last checkpoint", f"step {saved['step']:,}, {format_duration(saved['age'])} ago")
        )
    if found["goodput"] is not None:
        parts = ", ".join(
            f"{n} {format_duration(s)}" for n, s in found["seconds"].items() if s >= 1
        )
        rows.append(("goodput", f"{found['goodput']:.1%} ({parts})"))
        rows.append(("attempts", str(found["attempts"])))
    return rows
