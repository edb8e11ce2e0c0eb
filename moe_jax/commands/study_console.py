"""The training part of `moe-jax compare` and `moe-jax finetune` on a console."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rich.console import Console

from moe_jax.commands.arguments import required_config_source
from moe_jax.compare.planned_runs import PlannedRuns, Say, StudyOptions, missing_commands
from moe_jax.compare.progress import StudyProgress
from moe_jax.compare.scheduler import Observer
from moe_jax.compare.study_files import check_is_plan
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.waiting import waiting

Planned = TypeVar("Planned", bound=PlannedRuns)


def plan_source(args: argparse.Namespace, plan: str) -> ConfigSource:
    """Returns the gin files of a study that the flags give.

    Args:
        args: the flags.
        plan: the settings that they bind, `Study` or `Finetuning`.

    Raises:
        UserError: if none are given, or if they are of another kind.
    """
    source = required_config_source(args)
    check_is_plan(source, plan)
    return source


def study_options(args: argparse.Namespace, command: str) -> StudyOptions:
    """Returns the settings of this process that the flags give."""
    flags = [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    flags += ["--no_cache"] if args.no_cache else []
    return StudyOptions(args.output_dir, command, args.parallel, tuple(flags))


def print_commands(study: PlannedRuns, options: StudyOptions, say: Say) -> dict[str, Any]:
    """Prints the command of every missing run, one a line; returns them.

    Raises:
        UserError: if the configuration of a run has changed since it was trained.
    """
    commands = missing_commands(study, options.cache_flags)
    for line in commands:
        say(line)
    return {"commands": commands}


def train_and_report(
    study: Planned,
    options: StudyOptions,
    run: Callable[[Planned, StudyOptions, Observer, Say], Sequence[str]],
    report: Callable[[], dict[str, Any]],
    console: Console,
) -> dict[str, Any]:
    """Trains what is missing of a study with its progress, and reports on it.

    Args:
        study: the study.
        options: settings of this process.
        run: trains the missing runs; returns a line for each that failed.
        report: writes the report and returns the summary.
        console: the console to print to.

    Returns:
        the summary.

    Raises:
        UserError: for runs that failed, after the report on the others.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    jobs, directory = study.expected_jobs(), study.directory.path
    shown = StudyProgress(console, jobs, directory, options.parallel)
    # The progress of the runs takes the place of the line of `moe_jax.waiting`.
    with waiting("training", silent=True), shown as progress:
        failed = run(study, options, progress, progress.say)
    try:
        result = report()
    except UserError as error:
        if failed:
            raise UserError(f"{_failure(failed)}\nno report: {error}") from None
        raise
    if failed:
        raise _failure(failed)
    return result


def _failure(lines: Sequence[str]) -> UserError:
    """Returns the error of runs that failed, of which each has a line."""
    what = "1 run failed" if len(lines) == 1 else f"{len(lines)} runs failed"
    listed = "\n".join(f"  {line}" for line in lines)
    return UserError(f"{what}; the same command tries again:\n{listed}")
