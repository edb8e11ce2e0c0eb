"""The header of a training run and the table of an evaluation."""

from collections.abc import Mapping

from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax import config
from moe_jax.commands.console import line_printer
from moe_jax.data.pipeline.example_prompts import has_padding
from moe_jax.experiments import Experiment
from moe_jax.formatting import count, printable
from moe_jax.routing.router import Router
from moe_jax.training.task_metrics import task_metrics


def print_header(
    console: Console, experiment: Experiment, directory: epath.Path, mesh: str | None = None
) -> None:
    """Prints the model, data and mesh of a run, and the settings that it does not use."""
    model, data = experiment.model, experiment.data
    counts = experiment.parameters()
    tokens, steps = data.batch_size * data.sequence_length, experiment.train.steps
    shape = f"{model.num_layers} layers, width {model.d_model}"
    if (router := experiment.active_router) is not None:
        shape += (
            f", {model.num_experts} experts in {model.num_moe_layers} of them, "
            f"{router.name} ({router.pool.kind} pool)"
        )
    lines = [
        f"Model: {count(counts.total)} parameters, {count(counts.active)} active a token: {shape}",
        f"Data:  {printable(data.task_name)}, {data.batch_size} x {data.sequence_length} = "
        f"{tokens:,} tokens a step, {steps:,} steps = {count(tokens * steps)} tokens"
        + (", padding included" if has_padding(data) else ""),
        *([f"Mesh:  {mesh}"] if mesh else []),
        f"Run:   {directory}",
        *(f"Not used in this configuration: {unused}" for unused in config.unused()),
    ]
    say = line_printer(console)
    for line in lines:
        say(line)


def print_results(console: Console, figures: Mapping[str, float], router: Router | None) -> None:
    """Prints held-out figures, routed as trained and causally, as a table."""
    table = Table(title=f"Held-out text ({figures['bytes']:,.0f} bytes)", title_justify="left")
    for column in ("routing", "loss (nats/token)", "perplexity", "bits per byte", "experts/token"):
        table.add_column(column, justify="left" if column == "routing" else "right")
    for name, prefix in (("as trained", ""), ("causal", "causal_")):
        table.add_row(
            name,
            f"{figures[prefix + 'loss']:.3f}",
            f"{figures[prefix + 'perplexity']:.1f}",
            f"{figures[prefix + 'bits_per_byte']:.3f}",
            f"{figures[prefix + 'mean_experts']:.2f}",
        )
    console.print(table)
    for name, value in task_metrics(figures).items():
        console.print(f"{name}: {value:.4g}")
    if router is not None and not router.is_causal:
        console.print(
            "Routed as trained, the choice of experts sees later tokens; compare models, and "
            "expect of generated text, the causal figures.",
            style="dim",
        )
