"""`moe-jax compare`: train a study's runs, or take runs that exist, and write the report."""

import argparse
import shlex
from typing import Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError

NAME, HELP = "compare", "compare routers: train a study, or take existing runs, and report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `compare`."""
    arguments.add_gin_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="run or study directories, or results.jsonl files"
    )
    arguments.add_study_flags(parser)
    parser.add_argument(
        "--report_only", action="store_true", help="report on what is recorded; train nothing"
    )
    parser.add_argument("--baseline", metavar="ARM", help="another baseline for the report")
    parser.add_argument(
        "--matched_by",
        metavar="COST",
        help="steps, tokens, slots, flops or seconds, for the report",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs a study or reads runs, writes the report, prints and returns the summary.

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
    from moe_jax.compare.grouping import MATCHED_BY, check_choice
    from moe_jax.compare.study_directory import absolute, no_empty_directory

    check_choice("matched_by", args.matched_by, MATCHED_BY)
    console = make_main_console()
    say, command = line_printer(console), shlex.join(command_line())
    with no_empty_directory(absolute(args.output_dir)):
        if not args.gin_file or args.report_only:
            return _report(args, command, say)
        return _train(args, command, console, say)


def _train(args: argparse.Namespace, command: str, console: Any, say: Any) -> dict[str, Any]:
    from moe_jax.commands import study_console
    from moe_jax.compare.grouping import change_plan
    from moe_jax.compare.run_study import plan_study, run_study
    from moe_jax.compare.study import load_study

    loaded = load_study(study_console.plan_source(args, "Study"))
    # Before hours of training.
    change_plan(loaded.plan(command), args.baseline, args.matched_by)
    options = study_console.study_options(args, command)
    study = plan_study(loaded, options)
    if args.print_commands:
        return study_console.print_commands(study, options, say)
    return study_console.train_and_report(
        study, options, run_study, lambda: _report(args, command, say), console
    )


def _check(args: argparse.Namespace) -> None:
    """Refuses flags that do not fit together.

    Raises:
        UserError: in one line.
    """
    if args.parallel < 1:
        raise UserError(f"--parallel must be above 0, not {args.parallel}")
    if args.paths and args.gin_file:
        raise UserError(
            "give either --gin_file, a study to train, or paths of runs that exist, not both"
        )
    if not (args.paths or args.gin_file or args.report_only):
        raise UserError(
            "what is to be compared? Give a study, such as --gin_file=runs/compare_quick.gin, or "
            "run directories"
        )
    if args.print_commands and not args.gin_file:
        raise UserError("--print_commands prints the runs of a study: give its --gin_file")


def _report(args: argparse.Namespace, command: str, say: Any) -> dict[str, Any]:
    from moe_jax.compare.make_report import ReportChoices, make_report
    from moe_jax.compare.report import json_summary, summary_lines
    from moe_jax.compare.study_directory import StudyDirectory

    study = StudyDirectory(args.output_dir)
    directory = study.path
    if not args.paths and not study.runs():
        hint = ": run without --report_only" if args.report_only else ""
        raise UserError(f"nothing is recorded in {args.output_dir} yet{hint}")
    choices = ReportChoices(args.baseline, args.matched_by, command)
    comparison, files = make_report(args.paths or [str(directory)], directory, choices)
    for line in summary_lines(comparison, files):
        say(line)
    return {**json_summary(comparison), "report": str(files.html)}
