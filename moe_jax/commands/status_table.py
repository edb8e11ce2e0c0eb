"""The status of a run as tables."""

from typing import Any

from rich.console import Console
from rich.table import Table

from moe_jax.formatting import count
from moe_jax.runs.status import HEALTH_METRICS
from moe_jax.training.monitoring.progress import format_duration, format_throughput


def print_status(console: Console, found: dict[str, Any]) -> None:
    """Prints the status of a run: see `moe_jax.runs.status.run_status`."""
    table = Table(title=found["run"], title_justify="left", show_header=False)
    for name, text in _labelled_values(found):
        table.add_row(name, text)
    console.print(table)
    if found["router"]:
        names = [name for name in HEALTH_METRICS if name in found["router"][0]]
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


def _labelled_values(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the known values as labelled text."""
    age, left, trend = found["last_record_age"], found["seconds_left"], found["loss_per_1000_steps"]
    last = f", last record {format_duration(age)} ago" if age else ""
    values = [("state", found["state"] + last)]
    if (owner := found["owner"]) is not None:
        values.append(("trains there", _owner_in_words(owner)))
    of = f" of {found['steps']:,}" if found["steps"] else ""
    values.append(("step", f"{found['step']:,}{of}"))
    if found["loss"] is not None:
        change, span = "", found["trend_steps"]
        if trend is not None:
            change = f", {trend * span / 1000:+.4f} in the last {span:,} steps"
        values.append(("loss", f"{found['loss']:.4f}{change}"))
    if found["tokens_per_second"]:
        padding = " (without padding)" if found["has_padding"] else ""
        values.append(("speed", format_throughput(found["tokens_per_second"]) + padding))
    if found["tokens_seen"]:
        padding = " (padding included)" if found["has_padding"] else ""
        values.append(("tokens seen", count(found["tokens_seen"]) + padding))
    if left:
        values.append(("time left", format_duration(left)))
    if (figures := found["evaluation"]) is not None:
        shown = ", ".join(
            f"{n} " + ("not finite" if figures[n] is None else f"{figures[n]:.4f}")
            for n in ("loss", "causal_loss")
            if n in figures
        )
        values.append(("last evaluation", f"step {figures['step']:,}: {shown.replace('_', ' ')}"))
    if (saved := found["checkpoint"]) is not None:
        age = format_duration(saved["age"])
        values.append(("last checkpoint", f"step {saved['step']:,}, {age} ago"))
    if found["goodput"] is not None:
        seconds = found["seconds"].items()
        parts = ", ".join(f"{n} {format_duration(s)}" for n, s in seconds if s >= 1)
        values.append(("goodput", f"{found['goodput']:.1%} ({parts})"))
        values.append(("attempts", str(found["attempts"])))
    return values
