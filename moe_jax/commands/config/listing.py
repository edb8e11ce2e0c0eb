"""`moe-jax config list`: the package's gin files, and the names that gin files can use."""

import dataclasses
from typing import Any

from rich.markup import escape
from rich.table import Table

from moe_jax import config
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.gin_registry import registered


def list_configurations(source: ConfigSource) -> dict[str, Any]:
    """Prints the package's gin files and the configurables, those of imported modules included.

    Args:
        source: files whose imports register configurables; they need not be a whole configuration.

    Raises:
        UserError: for mistakes in the files.
    """
    # They register the package's own configurables.
    from moe_jax import experiments  # noqa: F401
    from moe_jax.compare import study  # noqa: F401

    if source.files:
        config.parse(source)
    configurables = registered()
    console = make_console()
    table = Table("gin file", "what it is")
    for name in config.shipped():
        first = (config.config_root() / name).read_text().splitlines()[0]
        table.add_row(name, first.removeprefix("#").strip())
    console.print(table)
    line_printer(console)(f"They are in {config.config_root()}")
    table = Table("configurable", "kind", "module", "what it is")
    for item in configurables:
        table.add_row(*(escape(text) for text in (item.name, item.kind, item.module, item.summary)))
    console.print(table)
    return {
        "files": config.shipped(),
        "configurables": [dataclasses.asdict(item) for item in configurables],
    }
