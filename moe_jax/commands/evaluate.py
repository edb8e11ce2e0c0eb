"""`moe-jax eval`: held-out loss, perplexity and bits per byte of a checkpoint."""

from typing import Any

from moe_jax.commands import garbage
from moe_jax.commands.load import load_experiment, load_variables
from moe_jax.commands.other_router import other_router
from moe_jax.commands.quiet import quiet
from moe_jax.commands.report import print_results
from moe_jax.commands.start import make_checked_partition, make_console
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.formatting import printable
from moe_jax.sharding.processes import propagate_errors
from moe_jax.training.run_directory.data_manifest import evaluation_notes
from moe_jax.waiting import waiting


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
    with propagate_errors():
        directory, described = load_experiment(checkpoint, files, bindings, search_paths)
    console = make_console()
    model = described.language_model(make_checked_partition(described))
    with waiting("loading the checkpoint", silent=console.quiet), quiet(debug):
        step, variables = load_variables(directory, step, model)
    with waiting("reading the data", silent=console.quiet), quiet(debug), propagate_errors():
        from moe_jax.data.pipeline import input_pipeline

        held_out = input_pipeline.eval_batches(described.data)
        bytes_of_token = input_pipeline.token_bytes(described.data, described.model.vocab_size)
        notes = evaluation_notes(directory, described.data)
    garbage.resume(collect=True)
    for line in notes:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    with waiting(f"evaluating step {step}", silent=console.quiet):
        figures = Evaluator(model, held_out, bytes_of_token)(variables).as_dict()
    name = printable(described.data.task_name)
    console.print(f"{directory}, step {step}, {name}", highlight=False, markup=False)
    if (note := other_router(directory)) is not None:
        console.print(f"Mind that {note}", highlight=False, markup=False, soft_wrap=True)
    print_results(console, figures, described.active_router)
    return {"step": step, "task": described.data.task_name, **figures}
