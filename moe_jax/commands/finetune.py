"""`moe-jax finetune`: fine-tune models on tasks over seeds, and report."""

import argparse
import shlex
from typing import Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError

NAME, HELP = "finetune", "fine-tune on tasks over seeds, and report with intervals"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `finetune`."""
    arguments.add_gin_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="report on a study or its results.jsonl; no training",
    )
    parser.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="[NAME=]RUN",
        help="a trained run to start from; repeatable",
    )
    arguments.add_study_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs a fine-tuning study, writes the report, prints and returns the summary.

    Raises:
        UserError: for mistakes in the study or the flags, and for runs that failed.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    _check(args)
    import jax

    # The devices are left to the child processes; for this one only.
    jax.config.update("jax_platforms", "cpu")
    from moe_jax.commands.console import line_printer, make_main_console
    from moe_jax.commands.this_process import command_line
    from moe_jax.compare.study_directory import absolute, make_directory, no_empty_directory

    console = make_main_console()
    say, command = line_printer(console), shlex.join(command_line())
    directory = absolute(args.output_dir)
    with no_empty_directory(directory):
        if args.path:
            make_directory(directory)
            return _report(args.path, args, say)
        return _train(args, command, console, say)


def _train(args: argparse.Namespace, command: str, console: Any, say: Any) -> dict[str, Any]:
    from moe_jax.commands import study_console
    from moe_jax.finetuning.models import find_models
    from moe_jax.finetuning.plan import load_finetuning
    from moe_jax.finetuning.study import plan_finetuning, run_finetuning
    from moe_jax.library_output import suppress_library_output
    from moe_jax.waiting import waiting

    source = study_console.plan_source(args, "Finetuning")
    options = study_console.study_options(args, command)
    models = find_models(args.checkpoint)
    # The names of tasks are those that seqio knows, which imports TensorFlow.
    with waiting("checking the runs"), suppress_library_output(args.debug):
        study = plan_finetuning(load_finetuning(source), models, options)
    if args.print_commands:
        return study_console.print_commands(study, options, say)
    return study_console.train_and_report(
        study, options, run_finetuning, lambda: _report(args.output_dir, args, say), console
    )


def _check(args: argparse.Namespace) -> None:
    """Refuses flags that do not fit together.

    Raises:
        UserError: in one line.
    """
    if args.parallel < 1:
        raise UserError(f"--parallel must be above 0, not {args.parallel}")
    if args.path and (args.checkpoint or args.gin_file or args.print_commands):
        raise UserError(
            "give either a study to report on, or --checkpoint and --gin_file to train, not both"
        )
    if not args.path and not args.checkpoint:
        raise UserError("which model is to be fine-tuned? Give --checkpoint=RUN")


def _report(path: str, args: argparse.Namespace, say: Any) -> dict[str, Any]:
    from moe_jax.compare.study_directory import absolute
    from moe_jax.finetuning.report import make_report, summary_lines
    from moe_jax.finetuning.results import json_summary
    from moe_jax.finetuning.submit import write_submissions

    directory = absolute(args.output_dir)
    results, files = make_report(path, directory)
    for line in (*summary_lines(results, files), *write_submissions(results, directory)):
        say(line)
    return {**json_summary(results), "report": str(files.html)}
