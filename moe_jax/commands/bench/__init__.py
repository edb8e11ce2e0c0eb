"""`moe-jax bench step | generate | data | routing | adaptive`: measurements on this machine."""

import argparse
from typing import Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError

NAME, HELP = "bench", "measure on this machine"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `bench`."""
    arguments.add_gin_flags(parser)
    parser.add_argument(
        "what",
        choices=("step", "generate", "data", "routing", "adaptive"),
        help="step: where a training step's time goes; generate: tokens a second of generation, "
        "beside a dense model; data: tokens a second of the data pipeline, "
        "by stage; routing: every router and dispatch beside "
        "a dense layer; adaptive: time by share of one-expert tokens",
    )
    parser.add_argument("--steps", type=int, default=5, help="step: steps to measure")
    parser.add_argument("--seconds", type=float, default=10, help="data: for each stage")
    parser.add_argument(
        "--size", default="M", metavar="XS|S|M|L", help="routing, adaptive: the layer"
    )
    parser.add_argument(
        "--routers", default="", metavar="A,B", help="routing: which (default: all)"
    )
    parser.add_argument("--dispatches", default="grouped,gather", metavar="A,B", help="routing")
    parser.add_argument("--dtype", default="float32", help="routing, adaptive: of the experts")
    parser.add_argument(
        "--rounds", type=int, default=5, help="routing, adaptive, generate: runs of each case"
    )
    parser.add_argument("--batches", default="1,8,64", metavar="A,B", help="generate: rows at once")
    parser.add_argument("--tokens", type=int, default=128, help="generate: new tokens of a row")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measures, prints and returns the result.

    Raises:
        UserError: for unknown names, or a mistake in the configuration.
    """
    if args.rounds < 1 or args.steps < 1:
        raise UserError("--rounds and --steps must be above 0")
    if args.tokens < 2:
        raise UserError(f"--tokens must be 2 or more, not {args.tokens}")
    if args.what == "adaptive":
        from moe_jax.commands.bench.adaptive import bench_adaptive

        return bench_adaptive(args.size, args.dtype, args.rounds)
    if args.what == "routing":
        from moe_jax.commands.bench.routing import bench_routing

        names = [name for name in args.routers.split(",") if name]
        return bench_routing(args.size, names, args.dispatches.split(","), args.dtype, args.rounds)
    source = arguments.config_source(args)
    if not source.files:
        source = source.replace_files("runs/quickstart.gin")
    if args.what == "data":
        from moe_jax.commands.bench.data import bench_data

        return bench_data(source, args.seconds, debug=args.debug)
    if args.what == "generate":
        from moe_jax.commands.bench.generation import bench_generate, read_batches

        batches = read_batches(args.batches)
        return bench_generate(source, batches, args.tokens, args.rounds, debug=args.debug)
    from moe_jax.commands.bench.step import bench_step

    return bench_step(source, args.steps, debug=args.debug)
