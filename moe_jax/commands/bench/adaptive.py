"""`moe-jax bench adaptive`: layer time by share of one-expert tokens."""

import dataclasses
from typing import Any

from rich.table import Table

from moe_jax.benchmarks import adaptive
from moe_jax.commands.bench.layer_size import get_size, layer_title
from moe_jax.commands.console import make_console
from moe_jax.waiting import waiting


def bench_adaptive(size: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Prints layer time by share of one-expert tokens, relative to two experts for all.

    Raises:
        UserError: for an unknown size or precision.
    """
    shape = get_size(size, dtype)
    console = make_console()
    with waiting(f"measuring {len(adaptive.PAPER)} shares, {rounds} rounds"):
        results = adaptive.measure(shape, "grouped", dtype, rounds)
    table = Table(
        *("one-expert tokens", "time", "computation", "paper: time", "paper: computation"),
        title=f"Adaptive gating, {layer_title(size, dtype)}, relative to top-2",
    )
    for result in results:
        table.add_row(
            f"{result.top1_share:.0%}",
            f"{result.relative_time:.2f}",
            f"{result.relative_flops:.2f}",
            f"{result.paper_time:.2f}",
            f"{result.paper_flops:.2f}",
        )
    console.print(table)
    return {"rows": [dataclasses.asdict(result) for result in results]}
