"""`moe-jax bench routing`: the cost of routers with each dispatch."""

import dataclasses
from typing import Any

from rich.table import Table

from moe_jax.benchmarks import routing
from moe_jax.commands.bench.layer_size import get_size, layer_title
from moe_jax.commands.console import line_printer, make_console
from moe_jax.dispatch import get_dispatch
from moe_jax.formatting import decimal
from moe_jax.routers import ROUTERS, get_router
from moe_jax.waiting import waiting


def bench_routing(
    size: str, routers: list[str], dispatches: list[str], dtype: str, rounds: int
) -> dict[str, Any]:
    """Prints the cost of routers with each dispatch, next to a dense layer of equal active FLOPs.

    Raises:
        UserError: for an unknown size, router, dispatch or precision.
    """
    shape = get_size(size, dtype)
    routers = routers or list(ROUTERS)
    for name in routers:
        get_router(name)
    for name in dispatches:
        get_dispatch(name)
    console = make_console()
    with waiting(f"measuring {len(routers)} routers, {rounds} rounds"):
        result = routing.measure(shape, routers, dispatches, dtype, rounds)
    table = Table(
        *("router", "dispatch", "ms", "of dense", "memory of dense", "GFLOP/s"),
        title=f"{layer_title(size, dtype)}, medians of {rounds} rounds",
    )
    for cost in result.costs:
        table.add_row(
            cost.router,
            cost.dispatch,
            decimal(cost.seconds * 1e3, 1),
            f"{cost.ratio_to_dense:.2f}",
            f"{cost.memory_to_dense:.2f}",
            decimal(cost.flops / cost.seconds / 1e9, 0),
        )
    console.print(table)
    say = line_printer(console)
    for active, seconds in sorted(result.dense_seconds.items()):
        say(f"dense layer of {active:g} experts' FLOPs: {seconds * 1e3:.1f} ms")
    say(f"matrix product of the same run: {result.matmul_flops_per_second / 1e9:.0f} GFLOP/s")
    return {
        "rows": [dataclasses.asdict(cost) for cost in result.costs],
        "dense_seconds": {f"{k:g}": v for k, v in result.dense_seconds.items()},
        "matmul_flops_per_second": result.matmul_flops_per_second,
    }
