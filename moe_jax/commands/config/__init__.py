"""`moe-jax config check | show | list`: configurations."""

import argparse
from typing import Any

from moe_jax.commands import arguments

NAME, HELP = "config", "check, show or list gin files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `config`."""
    arguments.add_gin_flags(parser)
    arguments.add_device_flags(parser)
    parser.add_argument("action", choices=("check", "show", "list"))
    parser.add_argument(
        "--sharding",
        action="store_true",
        help="show: how each parameter is sharded over the mesh",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Runs an action on a configuration and returns its result.

    Raises:
        UserError: for mistakes in the configuration.
    """
    if args.action == "list":
        from moe_jax.commands.config.listing import list_configurations

        return list_configurations(arguments.config_source(args))
    if args.action == "check":
        from moe_jax.commands.config.check import check

        return check(arguments.config_source(args))
    source = arguments.required_config_source(args)
    if args.sharding:
        from moe_jax.commands.config.sharding import show_sharding

        return show_sharding(source)
    from moe_jax.commands.config.show import show

    return show(source)
