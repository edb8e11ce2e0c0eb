"""`moe-jax calibrate`: thresholds for causal routing, set from text after training."""

import argparse
from typing import Any

from moe_jax.commands import arguments
from moe_jax.waiting import waiting

NAME, HELP = "calibrate", "thresholds for causal routing of a run with expert choice"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `calibrate`."""
    arguments.add_gin_flags(parser)
    arguments.add_checkpoint_flags(parser)
    parser.add_argument(
        "--output_dir", metavar="DIR", help="of the calibrated run (default: RUN-calibrated)"
    )
    parser.add_argument(
        "--capacity_factor", type=float, metavar="C", help="experts per token (default: the run's)"
    )
    parser.add_argument(
        "--method", default="thresholds", help="thresholds (the default) or predictor"
    )
    parser.add_argument(
        "--split", default="train", help="to set thresholds from (default: training batches)"
    )
    parser.add_argument(
        "--tokens", type=int, default=131_072, metavar="N", help="of that split (default: 131072)"
    )
    arguments.add_process_flags(parser)
    arguments.add_cache_flags(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Calibrates a checkpoint, writes it as a run of its own, prints and returns the figures.

    Raises:
        UserError: for everything that the user can correct.
    """
    from moe_jax.commands.calibration_report import print_calibration
    from moe_jax.commands.console import line_printer, make_main_console
    from moe_jax.library_output import suppress_library_output
    from moe_jax.runs import garbage_collection
    from moe_jax.runs.calibrated_run import CalibrationSample, output_directory, write_run
    from moe_jax.runs.calibration import calibrate
    from moe_jax.runs.calibration_setup import load_for_calibration
    from moe_jax.runs.device_mesh import make_checked_partition
    from moe_jax.runs.loading import load_model
    from moe_jax.runs.trained_router import router_mismatch

    source = arguments.config_source(args)
    setup = load_for_calibration(args.checkpoint, source, args.method, args.capacity_factor)
    loaded = setup.trained
    directory = output_directory(loaded, args.output_dir)
    console = make_main_console()
    say, silent, debug = line_printer(console), console.quiet, args.debug
    partition = make_checked_partition(loaded.experiment, loaded.config)
    with waiting("loading the checkpoint", silent=silent), suppress_library_output(debug):
        trained = load_model(loaded, args.step, partition)
    if (mismatch := router_mismatch(loaded)) is not None:
        say(f"Mind that {mismatch}")
    garbage_collection.resume(collect=True)
    sample = CalibrationSample(args.split, args.tokens)
    with waiting(f"calibrating step {trained.step}", silent=silent), suppress_library_output(debug):
        calibrated = calibrate(setup, trained, sample, say)
        write_run(calibrated, directory)
    print_calibration(console, calibrated)
    say(f"Run:   {directory}")
    return {"output_dir": str(directory), **calibrated.as_dict()}
