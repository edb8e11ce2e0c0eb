"""`moe-jax data stats`: numbers of examples, tokens and rows of a split."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from moe_jax.commands.console import line_printer, make_console
from moe_jax.commands.data.task import find_task
from moe_jax.data.config import DataConfig
from moe_jax.formatting import printable
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def stats(config: DataConfig, split: str, limit: int, debug: bool = False) -> dict[str, Any]:
    """Prints how many examples, tokens and rows a split has, and how full the rows are.

    Raises:
        UserError: if there is no such task or split.
    """
    console = make_console()
    say = line_printer(console)
    with waiting(f"reading {printable(config.task_name)}"), suppress_library_output(debug):
        from moe_jax.data.pipeline.statistics import compute_statistics

        notes = find_task(config, console).notes
        found = compute_statistics(config, split, limit)
    features = {name: feature.as_dict() for name, feature in found.features.items()}
    table = Table(
        "", *features, title=f"{escape(printable(config.task_name))}, {split}", title_justify="left"
    )
    for figure in next(iter(features.values())):
        cells = [f"{values[figure]:,.4g}" for values in features.values()]
        if all(float(values[figure]).is_integer() for values in features.values()):
            cells = [f"{values[figure]:,.0f}" for values in features.values()]
        table.add_row(figure.replace("_", " "), *cells)
    for note in notes:
        say(note)
    what = "the first " if limit and found.examples >= limit else ""
    say(f"{what}{found.examples:,} examples")
    console.print(table)
    say(
        f"{found.rows:,} rows of {config.sequence_length} tokens: {found.fill:.1%} of them text, "
        f"{found.loss_share:.1%} of that in the loss" + ("" if config.pack else " (not packed)")
    )
    return {
        "task": config.task_name,
        "split": split,
        "examples": found.examples,
        "features": features,
        "rows": found.rows,
        "fill": found.fill,
        "loss_share": found.loss_share,
    }
