"""The training part of `moe-jax compare` on a console."""

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console

from moe_jax.commands.arguments import required_config_source
from moe_jax.compare.progress import StudyProgress
from moe_jax.compare.run_study import (
    PlannedStudy,
    StudyOptions,
    missing_commands,
    plan_study,
    run_study,
)
from moe_jax.compare.study import load_study
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


def train_study(args: argparse.Namespace, command: str, console: Console) -> None:
    """Trains what is missing of a study, with its progress.

    Raises:
        UserError: for mistakes in the study, and for runs that failed, one in a line.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    study, options = _plan(args, command)
    jobs = [*study.trials(), *study.comparison({})]
    shown = StudyProgress(console, jobs, study.directory.path, options.parallel)
    # The progress of the runs takes the place of the line of `moe_jax.waiting`.
    with waiting("training", silent=True), shown as progress:
        failed = run_study(study, options, progress, progress.say)
    if failed:
        what = "1 run failed" if len(failed) == 1 else f"{len(failed)} runs failed"
        lines = "\n".join(f"  {line}" for line in failed)
        raise UserError(f"{what}; the same command tries again:\n{lines}")


def _plan(args: argparse.Namespace, command: str) -> tuple[PlannedStudy, StudyOptions]:
    flags = [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
    flags += ["--no_cache"] if args.no_cache else []
    options = StudyOptions(args.output_dir, command, args.parallel, tuple(flags))
    return plan_study(load_study(required_config_source(args)), options), options
