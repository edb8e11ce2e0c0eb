"""`moe-jax eval`: held-out loss, perplexity and bits per byte of a checkpoint."""

import argparse
from typing import Any

from moe_jax.commands import arguments
from moe_jax.waiting import waiting

NAME, HELP = "eval", "perplexity of a checkpoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `eval`."""
    arguments.add_gin_flags(parser)
    arguments.add_checkpoint_flags(parser)
    arguments.add_process_flags(parser)
    arguments.add_cache_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluates a checkpoint on its task's evaluation split, prints and returns the figures.

    Raises:
        UserError: for everything that the user can correct.
    """
    from moe_jax.commands.console import line_printer, make_main_console
    from moe_jax.commands.report import print_results
    from moe_jax.formatting import printable
    from moe_jax.library_output import suppress_library_output
    from moe_jax.runs import garbage_collection
    from moe_jax.runs.device_mesh import make_checked_partition
    from moe_jax.runs.evaluation import evaluate, read_evaluation_data
    from moe_jax.runs.loading import load_model, load_run
    from moe_jax.runs.trained_router import router_mismatch

    loaded = load_run(args.checkpoint, arguments.config_source(args))
    console = make_main_console()
    say, silent, debug = line_printer(console), console.quiet, args.debug
    partition = make_checked_partition(loaded.experiment, loaded.config)
    with waiting("loading the checkpoint", silent=silent), suppress_library_output(debug):
        trained = load_model(loaded, args.step, partition)
    with waiting("reading the data", silent=silent), suppress_library_output(debug):
        data = read_evaluation_data(loaded)
    garbage_collection.resume(collect=True)
    for note in data.notes:
        say(note)
    with waiting(f"evaluating step {trained.step}", silent=silent):
        figures = evaluate(trained, data).as_dict()
    task = loaded.experiment.data.task_name
    say(f"{loaded.directory}, step {trained.step}, {printable(task)}")
    if (mismatch := router_mismatch(loaded)) is not None:
        say(f"Mind that {mismatch}")
    print_results(console, figures, loaded.experiment.active_router)
    return {"step": trained.step, "task": task, **figures}
