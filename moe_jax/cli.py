"""The command line: parses a verb and its flags, runs it, and returns its exit code."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from moe_jax import __version__, jax_environment, strict_json
from moe_jax.commands import (
    bench,
    calibrate,
    compare,
    compile,
    config,
    data,
    eval,
    exceptions,
    finetune,
    generate,
    output,
    plot,
    startup,
    status,
    this_process,
    train,
)
from moe_jax.commands.arguments import GIN_PREFIX, add_output_flags, split_bindings
from moe_jax.commands.verb import Verb
from moe_jax.errors import Interrupted, UserError, nearest
from moe_jax.waiting import waiting

VERBS: tuple[Verb, ...] = (
    train,
    eval,
    generate,
    calibrate,
    config,
    status,
    plot,
    data,
    compare,
    finetune,
    compile,
    bench,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, 1 for an error, 128 + signal."""
    if argv is not None:
        return _run(argv)
    argv = sys.argv[1:]
    this_process.prepare(argv)
    try:
        return _run(argv)
    finally:
        output.finish()


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line, without the `--gin.` bindings."""
    parser = argparse.ArgumentParser(
        prog="moe-jax", description="Pre-train mixture-of-experts language models with JAX."
    )
    parser.add_argument("--version", action="version", version=f"moe-jax {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS:
        verb_parser = verbs.add_parser(verb.NAME, help=verb.HELP)
        add_output_flags(verb_parser)
        verb.add_arguments(verb_parser)
    return parser


def _run(argv: Sequence[str]) -> int:
    """Runs a command line and turns errors into an exit code."""
    debug = "--debug" in argv
    # Warnings of libraries (Orbax, JAX, seqio) are for developers.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        args = _parse(argv)
        return _print_result(args, _run_verb(args))
    except KeyboardInterrupt:
        print("moe-jax: stopped", file=sys.stderr)
        return this_process.leave(130)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, UserError):
            return exceptions.report_user_error(error)
        if isinstance(error, Interrupted):
            return exceptions.report_interrupt(error, "--json" in argv)
        return exceptions.report_unexpected(error)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses a command line; `gin_bindings` has the values of `--gin.NAME=VALUE`.

    Raises:
        UserError: for an unknown argument.
    """
    rest, bindings = split_bindings(list(argv))
    parser = make_parser()
    args, unknown = parser.parse_known_args(rest)
    if unknown:
        raise UserError(f"unknown argument {unknown[0]!r}.{_suggest(unknown[0], parser, argv)}")
    args.gin_bindings = bindings
    return args


def _suggest(unknown: str, parser: argparse.ArgumentParser, argv: Sequence[str]) -> str:
    """Returns a suggestion for an unknown argument, or an empty string."""
    before = argv[argv.index(unknown) - 1] if unknown in argv[1:] else ""
    if before.startswith(GIN_PREFIX) and "=" not in before:
        return f" Did you mean {before}={unknown}?"
    return nearest(unknown, _flags(parser))


def _flags(parser: argparse.ArgumentParser) -> list[str]:
    flags = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                flags += verb._option_string_actions
    return flags


def _run_verb(args: argparse.Namespace) -> dict[str, Any]:
    jax_environment.prepare(args.debug)
    (verb,) = (verb for verb in VERBS if args.verb == verb.NAME)
    # Shown until the verb itself says what it does: imports can take a while.
    with waiting(f"moe-jax {args.verb}", gives_way=True), startup.allowed_imports(args):
        startup.prepare_devices(args)
        if hasattr(args, "no_cache"):
            startup.enable_compilation_cache(args)
        return verb.run(args)


def _print_result(args: argparse.Namespace, result: dict[str, Any]) -> int:
    """Prints the result as JSON if asked for; an error if a number is not finite."""
    if args.json and this_process.is_main():
        print(strict_json.dumps(result))
    if found := strict_json.not_finite(result):
        if this_process.is_main():
            names = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            print(f"moe-jax: not finite: {names}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
