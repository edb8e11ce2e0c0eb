"""The training part of `moe-jax compare` on a console."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from moe_jax.commands.arguments import required_config_source
from moe_jax.compare.grouping import change_plan
from moe_jax.compare.progress import StudyProgress
from moe_jax.compare.run_study import (
    PlannedStudy,
    StudyOptions,
    missing_commands,
    plan_study,
    run_study,
)
from moe_jax.compare.study import load_study
from moe_jax.compare.study_files import check_is_plan
from moe_jax.errors import UserError
from moe_jax.waiting import waiting


def print_commands(
    args: argparse.Namespace, command: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Prints the command of every missing run, one a line; returns them.

    Raises:
        UserError: for mistakes in the study.
    """
    study, options = _plan(args, command)
    commands = missing_commands(study, options.cache_flags)
    for line in commands:
        say(line)
    return {"commands": commands}


def train_study(args: argparse.Namespace, command: str, console: Console) -> list[str]:
    """Trains what is missing of a study, with its progress.

    Returns:
        a line for each run that failed.

    Raises:
        UserError: for mistakes in the study.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    study, options = _plan(args, command)
    jobs = [*study.trials(), *study.comparison({})]
    shown = StudyProgress(console, jobs, study.directory.path, options.parallel)
    # The progress of the runs takes the place of the line of `moe_jax.waiting`.
    with waiting("training", silent=True), shown as progress:
        return run_study(study, options, progress, progress.say)


def failure(lines: Sequence[str]) -> UserError:
    """Returns the error of runs that failed, of which each has a line."""
    what = "1 run failed" if len(lines) == 1 else f"{len(lines)} runs failed"
    listed = "\n".join(f"  {line}" for line in lines)
    return UserError(f"{what}; the same command tries again:\n{listed}")


def study_options(args: argparse.Namespace, command: str) -> StudyOptions:
    """Returns the settings of this process that the flags give."""
    flags = [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    flags += ["--no_cache"] if args.no_cache else []
    return StudyOptions(args.output_dir, command, args.parallel, tuple(flags))


def _plan(args: argparse.Namespace, command: str) -> tuple[PlannedStudy, StudyOptions]:
    options = study_options(args, command)
    source = required_config_source(args)
    check_is_plan(source, "Study")
    loaded = load_study(source)
    # Before hours of training.
    change_plan(loaded.plan(command), args.baseline, args.matched_by)
    return plan_study(loaded, options), options
