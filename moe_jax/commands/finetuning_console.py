"""The training part of `moe-jax finetune` on a console."""

import argparse
from collections.abc import Callable
from typing import Any

from rich.console import Console

from moe_jax.commands.arguments import required_config_source
from moe_jax.commands.study_console import study_options
from moe_jax.compare.progress import StudyProgress
from moe_jax.compare.run_study import StudyOptions
from moe_jax.compare.study_files import check_is_plan
from moe_jax.finetuning.models import find_models
from moe_jax.finetuning.plan import load_finetuning
from moe_jax.finetuning.study import (
    PlannedFinetuning,
    missing_commands,
    plan_finetuning,
    run_finetuning,
)
from moe_jax.library_output import suppress_library_output
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


def train_models(args: argparse.Namespace, command: str, console: Console) -> list[str]:
    """Trains what is missing of a fine-tuning study, with its progress.

    Returns:
        a line for each run that failed.

    Raises:
        UserError: for mistakes in the study.
        Interrupted: after Ctrl-C or SIGTERM, once the running jobs have saved.
    """
    study, options = _plan(args, command)
    shown = StudyProgress(console, study.jobs, study.directory.path, options.parallel)
    # The progress of the runs takes the place of the line of `moe_jax.waiting`.
    with waiting("training", silent=True), shown as progress:
        return run_finetuning(study, options, progress, progress.say)


def _plan(args: argparse.Namespace, command: str) -> tuple[PlannedFinetuning, StudyOptions]:
    options = study_options(args, command)
    source = required_config_source(args)
    check_is_plan(source, "Finetuning")
    models = find_models(args.checkpoint)
    # The names of tasks are those that seqio knows, which imports TensorFlow.
    with waiting("checking the runs"), suppress_library_output(args.debug):
        return plan_finetuning(load_finetuning(source), models, options), options
