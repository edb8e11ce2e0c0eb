"""`moe-jax train`: train to the last step, evaluate, write a sample, and suggest next commands."""

import argparse
import sys
from typing import Any

from moe_jax.commands import arguments

NAME, HELP = "train", "train, or go on training"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `train`."""
    arguments.add_gin_flags(parser)
    arguments.add_process_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="the run directory")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Trains a configuration in a directory, or continues it; returns the final figures.

    Raises:
        UserError: for everything that the user can correct.
        Interrupted: after Ctrl-C or SIGTERM, with everything saved.
    """
    source = arguments.required_config_source(args)

    from moe_jax.commands.console import make_main_console
    from moe_jax.commands.this_process import command_line
    from moe_jax.commands.training_console import ConsoleListener, print_training_result
    from moe_jax.runs.training import TrainingOptions, prepare_run, train
    from moe_jax.training.monitoring.goodput_recorder import process_age

    age = process_age() if sys.argv[1:2] == [NAME] else 0.0
    options = TrainingOptions(command_line(), age, args.debug)
    prepared, partition = prepare_run(args.output_dir, source)
    console = make_main_console()
    result = train(prepared, partition, options, ConsoleListener(console))
    return print_training_result(console, prepared, result, options.command[0])
