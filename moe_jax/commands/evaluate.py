"""`moe-jax eval`: held-out loss, perplexity and bits per byte of a checkpoint."""

from typing import Any

from rich.console import Console

from moe_jax.commands.load import load_experiment, load_variables
from moe_jax.commands.quiet import quiet
from moe_jax.commands.report import print_results
from moe_jax.evaluation.perplexity import Evaluator


def evaluate(
    checkpoint: str,
    step: int | None,
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    debug: bool = False,
) -> dict[str, Any]:
    """Evaluates a checkpoint on its task's evaluation split, and prints a table.

    Raises:
        UserError: for anything the user can mend.
    """
    directory, described = load_experiment(checkpoint, files, bindings, search_paths)
    console = Console()
    model = described.language_model()
    with quiet(debug):
        step, variables = load_variables(directory, step, model)
    with console.status("reading the data ..."), quiet(debug):
        from moe_jax.data import pipeline

        held_out = pipeline.eval_batches(described.data)
        bytes_of_token = pipeline.token_bytes(described.data, described.model.vocab_size)
    with console.status(f"evaluating step {step} ..."):
        figures = Evaluator(model, held_out, bytes_of_token)(variables).as_dict()
    console.print(f"{directory}, step {step}, {described.data.task}", highlight=False)
    print_results(console, figures, described.active_router)
    return {"step": step, "task": described.data.task, **figures}
