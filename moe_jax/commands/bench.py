"""`moe-jax bench`: measure on this machine."""

from typing import Any

from rich.console import Console
from rich.table import Table

from moe_jax import experiment
from moe_jax.benchmarks.train_step import measure
from moe_jax.commands.quiet import quiet


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
    console = Console()
    with console.status("reading the data ..."), quiet(debug):
        from moe_jax.data import pipeline

        batches = pipeline.TrainBatches(described.data)
        next(batches)
    with console.status(f"measuring {steps} steps ..."), quiet(debug):
        times = measure(described, lambda: next(batches), steps)
    table = Table("part", "ms", "share", title=f"A training step, {', '.join(files)}")
    for name, value in sorted(times.parts.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value * 1e3:.1f}", f"{value / times.step_seconds:.1%}")
    table.add_row("step", f"{times.step_seconds * 1e3:.1f}", "100%")
    console.print(table)
    rate = times.flops / times.step_seconds
    console.print(
        f"{times.tokens / times.step_seconds:,.0f} tokens/s; {rate / 1e9:.1f} GFLOP/s counted "
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
