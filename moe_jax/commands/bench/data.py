"""`moe-jax bench data`: throughput of the data pipeline by stage."""

from typing import Any

from rich.table import Table

from moe_jax import experiments
from moe_jax.benchmarks.train_step import measure
from moe_jax.commands.console import make_console
from moe_jax.config_source import ConfigSource
from moe_jax.formatting import decimal
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def bench_data(source: ConfigSource, seconds: float, debug: bool = False) -> dict[str, Any]:
    """Prints the throughput of the data pipeline by stage, next to that of a training step.

    Raises:
        UserError: for a mistake in the configuration.
    """
    loaded = experiments.load(source)
    console = make_console()
    with waiting("measuring the data"), suppress_library_output(debug):
        from moe_jax.benchmarks import pipeline

        stages = pipeline.measure(loaded.data, seconds)
    with waiting("measuring a step"), suppress_library_output(debug):
        from moe_jax.data.pipeline.input_pipeline import TrainBatches

        batches = TrainBatches(loaded.data)
        times = measure(loaded, lambda: next(batches), 3)
    step = times.tokens / times.step_seconds
    name = loaded.data.task_name
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
