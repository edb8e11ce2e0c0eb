"""`moe-jax generate`: text from a checkpoint."""

import argparse
from typing import Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError
from moe_jax.waiting import waiting

NAME, HELP = "generate", "write text"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `generate`."""
    arguments.add_gin_flags(parser)
    arguments.add_checkpoint_flags(parser)
    arguments.add_cache_flags(parser)
    parser.add_argument("--prompt", default="", metavar="TEXT")
    parser.add_argument("--samples", type=int, default=1, metavar="N")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Generates texts that follow a prompt, routed causally; prints and returns them.

    Raises:
        UserError: for everything that the user can correct.
    """
    if args.samples < 1:
        raise UserError(f"--samples must be above 0, not {args.samples}")

    from moe_jax.commands.console import line_printer, make_console
    from moe_jax.commands.samples import print_samples
    from moe_jax.library_output import suppress_library_output
    from moe_jax.runs import garbage_collection
    from moe_jax.runs.generation import TextGenerator
    from moe_jax.runs.loading import load_model, load_run
    from moe_jax.runs.trained_router import router_mismatch

    loaded = load_run(args.checkpoint, arguments.config_source(args))
    console = make_console()
    with waiting("loading the checkpoint"), suppress_library_output(args.debug):
        trained = load_model(loaded, args.step)
        generate = TextGenerator(trained)
        samples = generate(args.prompt, args.samples)
    garbage_collection.resume(collect=True)
    texts: list[str] = []
    for number in range(1, args.samples + 1):
        with waiting(f"writing sample {number} of {args.samples}"):
            texts.append(next(samples))
    if (mismatch := router_mismatch(loaded)) is not None:
        line_printer(console)(f"Mind that {mismatch}")
    print_samples(console, args.prompt, texts, generate.answers_questions)
    return {"step": trained.step, "prompt": args.prompt, "texts": texts}
