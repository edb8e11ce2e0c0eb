"""`moe-jax compile`: a training step compiled for TPUs, on a machine without one."""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from moe_jax.commands import arguments
from moe_jax.commands.this_process import command_line

NAME, HELP = "compile", "what the TPU compiler says of a step: fits? how fast? (no TPU needed)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `compile`."""
    arguments.add_gin_flags(parser)
    parser.add_argument(
        "--topology", required=True, metavar="CHIP:SHAPE", help="v4:8x8x8, v5e:16x16, v6e-256, ..."
    )
    parser.add_argument(
        "--full", action="store_true", help="generate code too, whose cycles are then known"
    )
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="try meshes, rematerialisation and dispatches, and rank those that fit",
    )
    parser.add_argument(
        "--no_variants",
        action="store_true",
        help="answer only; do not look for what fits where this does not",
    )
    parser.add_argument(
        "--tokens", type=float, default=1e12, metavar="N", help="budget that chip-days are for"
    )
    parser.add_argument(
        "--output_dir", metavar="DIR", help="where compile.json and .md are written"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Compiles the configured training step, prints and returns the answer.

    Raises:
        UserError: for an unknown topology, without the TPU compiler, or for a mistake in the
            configuration.
        Interrupted: by Ctrl-C after the answer, with what is known so far.
    """
    # Before JAX starts: it would look for a TPU, and on a machine with one take it.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from moe_jax.commands.compile.report import CompileOptions, compile_for

    options = CompileOptions(
        args.topology,
        args.full,
        args.sweep,
        args.tokens,
        args.output_dir,
        list(command_line()),
        variants=not args.no_variants,
    )
    with _exit_when_terminated():
        return compile_for(options, arguments.required_config_source(args))


@contextlib.contextmanager
def _exit_when_terminated() -> Iterator[None]:
    """Makes SIGTERM end the process as an error does, with its child processes and files."""
    previous = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
