"""`moe-jax eval`: perplexity of a checkpoint on held-out text, and its scores of a task."""

import argparse
from typing import TYPE_CHECKING, Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError
from moe_jax.waiting import waiting

if TYPE_CHECKING:  # They import JAX.
    from moe_jax.runs.loading import Run, TrainedModel
    from moe_jax.runs.task_evaluation import TaskScorer

NAME, HELP = "eval", "perplexity of a checkpoint, scores of a task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `eval`."""
    arguments.add_gin_flags(parser)
    arguments.add_checkpoint_flags(parser)
    arguments.add_process_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument(
        "--output", metavar="FILE", help="writes the prediction for every example (JSON lines)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Evaluates a checkpoint on its task's evaluation split, prints and returns the figures.

    Of a task with inputs and targets these are its perplexity and its scores.

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
    _check_output(args.output)
    console = make_main_console()
    say, silent, debug = line_printer(console), console.quiet, args.debug
    partition = make_checked_partition(loaded.experiment, loaded.config)
    with waiting("loading the checkpoint", silent=silent), suppress_library_output(debug):
        trained = load_model(loaded, args.step, partition)
    with waiting("reading the data", silent=silent), suppress_library_output(debug):
        data = read_evaluation_data(loaded)
        scorer, notes = _make_scorer(loaded, trained, args.output)
    garbage_collection.resume(collect=True)
    for note in (*data.notes, *notes):
        say(note)
    with waiting(f"evaluating step {trained.step}", silent=silent):
        figures = evaluate(trained, data).as_dict()
    task = loaded.experiment.data.task_name
    say(f"{loaded.directory}, step {trained.step}, {printable(task)}")
    if (mismatch := router_mismatch(loaded)) is not None:
        say(f"Mind that {mismatch}")
    print_results(console, figures, loaded.experiment.active_router)
    found: dict[str, Any] = {"step": trained.step, "task": task, **figures}
    if scorer is not None:
        found |= _score(scorer, trained, args.output, console)
    return found


def _check_output(path: str | None) -> None:
    if path is None:
        return
    from moe_jax.runs.prediction_file import check_prediction_file
    from moe_jax.sharding.processes import is_main, propagate_errors

    with propagate_errors():
        if is_main():
            check_prediction_file(path)


def _make_scorer(
    loaded: "Run", trained: "TrainedModel", output: str | None
) -> "tuple[TaskScorer | None, list[str]]":
    """Returns what computes the scores, and notes for the user; None for a text without inputs."""
    from moe_jax.runs.run_vocabulary import check_run_vocabulary
    from moe_jax.runs.task_evaluation import TaskScorer, has_scores
    from moe_jax.sharding.processes import propagate_errors

    if not has_scores(loaded.experiment):
        if output is not None:
            raise UserError(
                f"--output is for tasks with metrics or classes, which "
                f"{loaded.experiment.data.task_name} is not"
            )
        return None, []
    try:
        scorer = TaskScorer(loaded.experiment, trained.model)
    except UserError as error:
        # Rows are cached so that the task itself need not be there.
        if loaded.experiment.data.rows_dir is None or output is not None:
            raise
        return None, [f"no scores, only the loss: {error}"]
    with propagate_errors():
        for task in scorer.tasks:
            check_run_vocabulary(loaded, task)
    return scorer, scorer.notes


def _score(
    scorer: "TaskScorer", trained: "TrainedModel", output: str | None, console: Any
) -> dict[str, Any]:
    """Computes, prints and writes the scores; returns them."""
    from moe_jax.commands.score_report import print_scores, scores_as_dict
    from moe_jax.runs.prediction_file import write_predictions

    with waiting("scoring", silent=console.quiet) as wait:
        results = scorer.evaluate(trained.variables, wait.say)
    print_scores(console, results)
    if output is not None:
        write_predictions(output, results)
        count = sum(len(result.causal.predictions) for result in results)
        console.print(f"{count:,} predictions in {output}", markup=False, highlight=False)
    return scores_as_dict(results, output)
