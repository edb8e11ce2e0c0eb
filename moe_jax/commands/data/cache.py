"""`moe-jax data cache`: a task tokenised once, ahead of a run."""

from typing import Any

from rich.table import Table

from moe_jax.commands.console import line_printer, make_console
from moe_jax.commands.data.task import find_task
from moe_jax.data.config import DataConfig
from moe_jax.formatting import printable
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def cache(
    config: DataConfig, output_dir: str, force: bool = False, debug: bool = False
) -> dict[str, Any]:
    """Tokenises a task into a directory that `Data.cache_dir` reads, and prints the contents.

    Raises:
        UserError: if the task cannot be cached, or is in the directory already.
    """
    console = make_console()
    with waiting(f"tokenising {printable(config.task_name)}"), suppress_library_output(debug):
        from moe_jax.data.pipeline.task_cache import cache_task

        find_task(config, console)
        written = cache_task(config, output_dir, force)
    table = Table("task, in the cache", "split", "examples")
    for name, splits in written.items():
        for split, examples in splits.items():
            table.add_row(name, split, f"{examples:,}")
    console.print(table)
    line_printer(console)(f"Read it with --gin.Data.cache_dir={output_dir}")
    return {"cache_dir": output_dir, "tasks": written}
