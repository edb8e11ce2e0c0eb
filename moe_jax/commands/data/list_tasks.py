"""`moe-jax data list`: the tasks and mixtures that `Data.task` can name."""

from typing import Any

from rich.console import Console
from rich.table import Table

from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def list_tasks(source: ConfigSource, debug: bool = False) -> dict[str, Any]:
    """Prints the tasks and mixtures of the package, and those that imported modules registered.

    Args:
        source: files whose imports register tasks with seqio; they need not be a whole
            configuration.
        debug: show the output of libraries.

    Raises:
        UserError: for mistakes in the files.
    """
    if source.files:
        from moe_jax import (
            config,
            experiments,  # noqa: F401  (registers the names that files can use)
        )

        config.parse(source)
    with waiting("listing the tasks"), suppress_library_output(debug):
        from moe_jax.data.tasks import catalog

        definitions, suites = catalog.definitions(), catalog.mixtures()
        registered = catalog.registered_tasks()
    console = make_console()
    _print_texts(console)
    _print_tasks(console)
    if registered:
        table = Table("task or mixture of your own modules", "metrics")
        for name, metrics in registered.items():
            table.add_row(name, ", ".join(metrics))
        console.print(table)
    line_printer(console)(
        "Look at one: moe-jax data show NAME. Train on one: --gin.TASK=NAME. Full names, as in "
        "T5, work too (glue_sst2_v002)."
    )
    result: dict[str, Any] = {
        "texts": ["embedded", *catalog.PLAIN_TEXTS],
        "tasks": list(definitions),
        "mixtures": {name: dict(rates) for name, rates in suites.items()},
    }
    return {**result, "registered": list(registered)} if source.files else result


def _print_texts(console: Console) -> None:
    from moe_jax.data.tasks import catalog

    table = Table("text", "what it is", title="Plain text, to pre-train on", title_justify="left")
    table.add_row("embedded", "the English corpus in the package: novels and speeches")
    for name, text in catalog.PLAIN_TEXTS.items():
        table.add_row(name, f"{text.description}; TFDS {text.source}")
    for prefix, what in catalog.USER_FILE_KINDS.items():
        table.add_row(f"{prefix}:FILES" if prefix != "tfds" else "tfds:NAME", what)
    console.print(table)


def _print_tasks(console: Console) -> None:
    from moe_jax.data.tasks import catalog

    title = "Tasks with inputs and targets"
    table = Table("task", "training rows", "TFDS source", title=title, title_justify="left")
    short = {full: name for name, full in catalog.short_names().items()}
    for name, definition in catalog.definitions().items():
        rows = f"{definition.num_train_examples:,}" if definition.num_train_examples else "none"
        table.add_row(short.get(name, name), rows, definition.source)
    console.print(table)
    columns = ("mixture", "tasks, at rates by their rows")
    table = Table(*columns, title="Mixtures", title_justify="left")
    for name, rates in catalog.mixtures().items():
        table.add_row(name, ", ".join(task for task, rate in rates.items() if rate))
    console.print(table)
