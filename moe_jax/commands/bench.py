"""`moe-jax bench`: measure on this machine."""

import dataclasses
from typing import Any

from rich.table import Table

from moe_jax import experiment
from moe_jax.benchmarks import adaptive, layer, routing
from moe_jax.benchmarks.train_step import measure
from moe_jax.commands.console import make_console
from moe_jax.commands.quiet import quiet
from moe_jax.dispatch import get_dispatch
from moe_jax.errors import UserError, nearest
from moe_jax.formatting import decimal
from moe_jax.models.config import DTYPES
from moe_jax.routers import ROUTERS, get_router
from moe_jax.waiting import waiting


def bench_step(
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    steps: int,
    debug: bool = False,
) -> dict[str, Any]:
    """Prints where a training step's time goes and its FLOP/s beside a matrix product's.

    Raises:
        UserError: for a mistake in the configuration.
    """
    described = experiment.load(files, bindings, search_paths)
    console = make_console()
    with waiting("reading the data"), quiet(debug):
        from moe_jax.data.pipeline import input_pipeline

        batches = input_pipeline.TrainBatches(described.data)
        next(batches)
    with waiting(f"measuring {steps} steps"), quiet(debug):
        times = measure(described, lambda: next(batches), steps)
    table = Table("part", "ms", "share", title=f"A training step, {', '.join(files)}")
    for name, value in sorted(times.parts.items(), key=lambda item: -item[1]):
        table.add_row(name, decimal(value * 1e3, 1), f"{value / times.step_seconds:.1%}")
    table.add_row("step", decimal(times.step_seconds * 1e3, 1), "100%")
    console.print(table)
    rate = times.flops / times.step_seconds
    console.print(
        f"{decimal(times.tokens / times.step_seconds, 0)} tokens/s, padding included; "
        f"{decimal(rate / 1e9, 1)} GFLOP/s counted "
        f"(rule: moe_jax/flops.py)\n{times.matmul_flops_per_second / 1e9:.1f} GFLOP/s in a 2048 "
        f"x 2048 matrix product in {described.model.compute_dtype} in the same run: "
        f"{times.utilisation:.0%} of it",
        highlight=False,
        soft_wrap=True,
    )
    return {
        "step_seconds": times.step_seconds,
        "parts": times.parts,
        "tokens_per_second": times.tokens / times.step_seconds,
        "flops_per_second": rate,
        "matmul_flops_per_second": times.matmul_flops_per_second,
        "utilisation": times.utilisation,
    }


def bench_data(
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    seconds: float,
    debug: bool = False,
) -> dict[str, Any]:
    """Prints how many tokens a second each stage of the data pipeline gives, beside a step.

    Raises:
        UserError: for a mistake in the configuration.
    """
    described = experiment.load(files, bindings, search_paths)
    console = make_console()
    with waiting("measuring the data"), quiet(debug):
        from moe_jax.benchmarks import pipeline

        stages = pipeline.measure(described.data, seconds)
    with waiting("measuring a step"), quiet(debug):
        from moe_jax.data.pipeline.input_pipeline import TrainBatches

        batches = TrainBatches(described.data)
        times = measure(described, lambda: next(batches), 3)
    step = times.tokens / times.step_seconds
    name = described.data.task_name
    table = Table("up to this stage", "tokens/s", "x the step", title=f"The data of {name}")
    for stage in stages:
        rate = stage.tokens_per_second
        table.add_row(stage.name, decimal(rate, 0), decimal(rate / step, 0))
    table.add_row("a training step, padding included", decimal(step, 0), "1")
    console.print(table)
    return {
        "task": name,
        "stages": {stage.name: stage.tokens_per_second for stage in stages},
        "step_tokens_per_second": step,
        "ratio": stages[-1].tokens_per_second / step,
    }


def bench_routing(
    size: str, routers: list[str], dispatches: list[str], dtype: str, rounds: int
) -> dict[str, Any]:
    """Prints what routers cost with each transport, beside a dense layer of equal active FLOPs.

    Raises:
        UserError: for an unknown size, router, transport or precision.
    """
    shape = _size(size, dtype)
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
        title=f"{_title(size, dtype)}, medians of {rounds} rounds",
    )
    for row in result.rows:
        table.add_row(
            row.router,
            row.dispatch,
            decimal(row.seconds * 1e3, 1),
            f"{row.ratio_to_dense:.2f}",
            f"{row.memory_to_dense:.2f}",
            decimal(row.flops / row.seconds / 1e9, 0),
        )
    console.print(table)
    for active, seconds in sorted(result.dense_seconds.items()):
        console.print(
            f"dense layer of {active:g} experts' FLOPs: {seconds * 1e3:.1f} ms", highlight=False
        )
    console.print(
        f"matrix product of the same run: {result.matmul_flops_per_second / 1e9:.0f} GFLOP/s",
        highlight=False,
    )
    return {
        "rows": [dataclasses.asdict(row) for row in result.rows],
        "dense_seconds": {f"{k:g}": v for k, v in result.dense_seconds.items()},
        "matmul_flops_per_second": result.matmul_flops_per_second,
    }


def bench_adaptive(size: str, dtype: str, rounds: int) -> dict[str, Any]:
    """Prints layer time by share of one-expert tokens, relative to two experts for all.

    Raises:
        UserError: for an unknown size or precision.
    """
    shape = _size(size, dtype)
    console = make_console()
    with waiting(f"measuring {len(adaptive.PAPER)} shares, {rounds} rounds"):
        rows = adaptive.measure(shape, "grouped", dtype, rounds)
    table = Table(
        *("one-expert tokens", "time", "computation", "paper: time", "paper: computation"),
        title=f"Adaptive gating, {_title(size, dtype)}, relative to top-2",
    )
    for row in rows:
        table.add_row(
            f"{row.top1_share:.0%}",
            f"{row.relative_time:.2f}",
            f"{row.relative_flops:.2f}",
            f"{row.paper_time:.2f}",
            f"{row.paper_flops:.2f}",
        )
    console.print(table)
    return {"rows": [dataclasses.asdict(row) for row in rows]}


def _size(name: str, dtype: str) -> layer.Size:
    if name not in layer.SIZES:
        raise UserError(f"unknown size {name!r}; known: {', '.join(layer.SIZES)}")
    if dtype not in DTYPES:
        raise UserError(
            f"unknown precision {dtype!r}; known: {', '.join(DTYPES)}." + nearest(dtype, DTYPES)
        )
    return layer.SIZES[name]


def _title(size: str, dtype: str) -> str:
    s = layer.SIZES[size]
    return f"{s.tokens} tokens, width {s.width}, {s.experts} experts of {s.hidden}, {dtype}"
