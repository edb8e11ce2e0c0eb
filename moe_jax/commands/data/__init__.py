"""`moe-jax data list | show | stats | prepare | cache | score`: the training data."""

import argparse
from typing import Any

from moe_jax.commands import arguments
from moe_jax.errors import UserError

NAME, HELP = "data", "what there is to train on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `data`."""
    arguments.add_gin_flags(parser)
    arguments.add_process_flags(parser)
    parser.add_argument(
        "action",
        choices=tuple(_ACTIONS),
        help="list: every task; show: some rows of one; stats: examples, tokens and rows; "
        "prepare: original files into a TFDS directory; cache: tokenise once, ahead of a run; "
        "score: order the training rows by how many experts a checkpoint gives them",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a task, or what to prepare")
    parser.add_argument("--split", default="validation", help="show, stats: which split")
    parser.add_argument("--examples", type=int, metavar="N", help="show: 3; stats: all")
    parser.add_argument("--source", metavar="DIR", help="prepare: where the original files are")
    parser.add_argument(
        "--data_dir", metavar="DIR", help="prepare: where the TFDS directory is made"
    )
    parser.add_argument(
        "--force", action="store_true", help="prepare, cache: write over an old one"
    )
    parser.add_argument(
        "--output_dir", metavar="DIR", help="cache: for Data.cache_dir; score: the order"
    )
    parser.add_argument(
        "--rows", action="store_true", help="cache: rows in training order, for Data.rows_dir"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="cache --rows: training steps (default: the run's)"
    )
    parser.add_argument(
        "--seeds", metavar="N,N", help="cache --rows: orders to write (default: Data.seed)"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="score: a run directory")
    parser.add_argument(
        "--step", type=int, help="score: the checkpoint's step (default: the latest)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs an action on the data and returns its result.

    Raises:
        UserError: for everything that the user can correct.
    """
    if args.examples is not None and args.examples < 1:
        raise UserError(f"--examples must be above 0, not {args.examples}")
    return _ACTIONS[args.action](args)


def _list(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.data.list_tasks import list_tasks

    return list_tasks(arguments.config_source(args), debug=args.debug)


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.data.show import show
    from moe_jax.commands.data.task import load_data

    config = load_data(args.name, arguments.config_source(args))
    return show(config, args.split, args.examples or 3, debug=args.debug)


def _stats(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.data.stats import stats
    from moe_jax.commands.data.task import load_data

    config = load_data(args.name, arguments.config_source(args))
    return stats(config, args.split, args.examples or 0, debug=args.debug)


def _prepare(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.console import make_console
    from moe_jax.commands.data.prepare import prepare

    _need("prepare", {"NAME": args.name, "--source": args.source, "--data_dir": args.data_dir})
    return prepare(
        args.name, args.source, args.data_dir, make_console(), force=args.force, debug=args.debug
    )


def _cache(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.data.cache import cache
    from moe_jax.commands.data.cache_rows import RowOptions, cache_rows
    from moe_jax.commands.data.task import load_data

    config = load_data(args.name, arguments.config_source(args))
    _need("cache", {"--output_dir": args.output_dir})
    if args.rows:
        given = (args.output_dir, args.steps, args.seeds, args.force, args.debug)
        return cache_rows(config, RowOptions(*given))
    for flag, value in {"--steps": args.steps, "--seeds": args.seeds}.items():
        if value is not None:
            raise UserError(f"{flag} needs --rows: a cache of tokenised texts has no order")
    return cache(config, args.output_dir, force=args.force, debug=args.debug)


def _score(args: argparse.Namespace) -> dict[str, Any]:
    from moe_jax.commands.data.score import ScoreOptions, score
    from moe_jax.commands.startup import enable_compilation_cache
    from moe_jax.commands.this_process import command_line

    enable_compilation_cache(args)
    _need("score", {"--checkpoint": args.checkpoint, "--output_dir": args.output_dir})
    options = ScoreOptions(
        args.checkpoint, args.step, args.output_dir, command_line(), debug=args.debug
    )
    return score(options, arguments.config_source(args))


def _need(action: str, flags: dict[str, str | None]) -> None:
    for flag, value in flags.items():
        if not value:
            raise UserError(f"data {action} needs {flag}")


_ACTIONS = {
    "list": _list,
    "show": _show,
    "stats": _stats,
    "prepare": _prepare,
    "cache": _cache,
    "score": _score,
}
