"""`moe-jax bench step`: the time of a training step by part."""

from typing import Any

from rich.table import Table

from moe_jax import experiments
from moe_jax.benchmarks.train_step import measure
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.formatting import decimal
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def bench_step(source: ConfigSource, steps: int, debug: bool = False) -> dict[str, Any]:
    """Prints the time of a training step by part, and its FLOP/s next to a matrix product's.

    Raises:
        UserError: for a mistake in the configuration.
    """
    loaded = experiments.load(source)
    console = make_console()
    with waiting("reading the data"), suppress_library_output(debug):
        from moe_jax.data.pipeline.batch_source import open_source

        batches = open_source(loaded.data).train_batches()
        next(batches)
    with waiting(f"measuring {steps} steps"), suppress_library_output(debug):
        times = measure(loaded, lambda: next(batches), steps)
    table = Table("part", "ms", "share", title=f"A training step, {', '.join(source.files)}")
    for name, value in sorted(times.parts.items(), key=lambda item: -item[1]):
        table.add_row(name, decimal(value * 1e3, 1), f"{value / times.step_seconds:.1%}")
    table.add_row("step", decimal(times.step_seconds * 1e3, 1), "100%")
    console.print(table)
    rate = times.flops / times.step_seconds
    line_printer(console)(
        f"{decimal(times.tokens / times.step_seconds, 0)} tokens/s, padding included; "
        f"{decimal(rate / 1e9, 1)} GFLOP/s counted "
        f"(rule: moe_jax/flops.py)\n{times.matmul_flops_per_second / 1e9:.1f} GFLOP/s in a 2048 "
        f"x 2048 matrix product in {loaded.model.compute_dtype} in the same run: "
        f"{times.utilisation:.0%} of it"
    )
    return {
        "step_seconds": times.step_seconds,
        "parts": times.parts,
        "tokens_per_second": times.tokens / times.step_seconds,
        "flops_per_second": rate,
        "matmul_flops_per_second": times.matmul_flops_per_second,
        "utilisation": times.utilisation,
    }
