"""Flags that several verbs share, and the values that they stand for."""

import argparse

from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError

# Bindings, such as --gin.Train.steps=100, are not known to argparse: `split_bindings`.
GIN_PREFIX = "--gin."


def add_output_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of every verb."""
    parser.add_argument("--json", action="store_true", help="last line: the result as JSON")
    parser.add_argument("--debug", action="store_true", help="show tracebacks and library logs")


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that read a configuration."""
    parser.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="repeatable, later wins"
    )
    parser.add_argument("--gin_search_paths", default="", help="directories, separated by commas")
    parser.add_argument(
        "--allow_imports",
        action="append",
        default=[],
        metavar="MODULE,...",
        help="modules that gin files may import, and so run; see docs/guides/security.md",
    )
    parser.add_argument(
        "--gin.NAME",
        dest="_gin_help",
        metavar="VALUE",
        help="sets one value, such as --gin.Train.steps=100",
    )


def add_device_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that use the devices of one process."""
    parser.add_argument("--cpu_devices", type=int, metavar="N", help="virtual CPU devices (tests)")


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that can run in several processes."""
    add_device_flags(parser)
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    parser.add_argument("--num_processes", type=int, metavar="N", help="processes of the run")
    parser.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    parser.add_argument(
        "--start_timeout", type=float, default=300, metavar="SECONDS", help="to wait for all"
    )


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that read a checkpoint."""
    parser.add_argument("--checkpoint", required=True, metavar="DIR", help="a run directory")
    parser.add_argument(
        "--step",
        type=step,
        metavar="N|best|latest",
        help="the checkpoint's step; best: by Checkpoints.best_is (default: the latest)",
    )


def step(text: str) -> int | str:
    """Parses the value of `--step`.

    Raises:
        ValueError: if it is neither a number nor one of the names.
    """
    return text if text in ("best", "latest") else int(text)


def add_study_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that train the runs of a study."""
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="study and report")
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="runs at a time; a GPU for each"
    )
    parser.add_argument(
        "--print_commands",
        action="store_true",
        help="print the command of every missing run, for another scheduler; run nothing",
    )


def add_cache_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of verbs that compile a model."""
    parser.add_argument(
        "--cache_dir",
        metavar="DIR",
        help="where compiled programs are kept, local or gs:// (default: the user's cache "
        "directory; of several processes, .compiled beside the output directory)",
    )
    parser.add_argument("--no_cache", action="store_true", help="compile everything anew")


def split_bindings(argv: list[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into what argparse parses and the NAME=VALUE of `--gin.NAME=VALUE`."""
    bindings = [a.removeprefix(GIN_PREFIX) for a in argv if a.startswith(GIN_PREFIX)]
    return [a for a in argv if not a.startswith(GIN_PREFIX)], bindings


def config_source(args: argparse.Namespace) -> ConfigSource:
    """Returns the configuration that the flags of `add_gin_flags` name."""
    paths = [path for path in args.gin_search_paths.split(",") if path]
    return ConfigSource(tuple(args.gin_file), tuple(args.gin_bindings), tuple(paths))


def required_config_source(args: argparse.Namespace) -> ConfigSource:
    """Returns the configuration that the flags name.

    Raises:
        UserError: if no file is given.
    """
    if not args.gin_file:
        raise UserError(
            "which configuration? Give --gin_file, for example --gin_file=runs/quickstart.gin "
            "(`moe-jax config list` shows them)"
        )
    return config_source(args)
