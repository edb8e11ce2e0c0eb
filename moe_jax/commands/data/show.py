"""`moe-jax data show`: rows of a task as the model receives them."""

import itertools
from typing import Any

from rich.markup import escape

from moe_jax.commands.console import line_printer, make_console
from moe_jax.commands.data.task import find_task
from moe_jax.data.config import DataConfig
from moe_jax.formatting import printable
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting

# Longer texts are truncated.
_MAX_CHARACTERS = 1000


def show(config: DataConfig, split: str, examples: int, debug: bool = False) -> dict[str, Any]:
    """Prints the splits of a task and the first rows of one split, as the model receives them.

    Raises:
        UserError: if there is no such task or split.
    """
    console = make_console()
    say = line_printer(console)
    with waiting(f"reading {printable(config.task_name)}"), suppress_library_output(debug):
        from moe_jax.data.pipeline import input_pipeline
        from moe_jax.data.pipeline.model_features import get_dataset

        task = find_task(config, console)
        vocabulary = input_pipeline.vocabulary_of(config)
        rows = get_dataset(config, split, training=False).as_numpy_iterator()
        shown = list(itertools.islice(rows, examples))
    name = escape(printable(config.task_name))
    console.print(f"[bold]{name}[/bold], {task.kind}", highlight=False)
    say(
        f"splits: {', '.join(sorted(task.provider.splits))}; vocabulary of "
        f"{vocabulary.vocab_size:,} tokens; rows of {config.sequence_length}"
    )
    for note in task.notes:
        say(note)
    if not shown:
        say(f"there is nothing in the split {split!r}")
    result = [_row_as_text(row, vocabulary) for row in shown]
    for number, parts in enumerate(result, 1):
        tokens, weighted = parts["tokens"], parts["tokens_in_loss"]
        console.print(
            f"\n[bold]{escape(split)} {number}[/bold]: {tokens} tokens, {weighted} in the loss",
            highlight=False,
        )
        for name in ("inputs", "targets"):
            if name in parts:
                text = (
                    parts[name]
                    if len(parts[name]) <= _MAX_CHARACTERS
                    else parts[name][:_MAX_CHARACTERS] + " ..."
                )
                console.print(f"[dim]{name}:[/dim] {escape(text)}", highlight=False)
    return {"task": config.task_name, "splits": sorted(task.provider.splits), "examples": result}


def _row_as_text(row: dict[str, Any], vocabulary: Any) -> dict[str, Any]:
    """Decodes the inputs and the targets of a row."""
    targets, weights = row["decoder_target_tokens"], row["decoder_loss_weights"]
    parts: dict[str, Any] = {
        "tokens": int((targets != 0).sum()),
        "tokens_in_loss": int((weights > 0).sum()),
    }
    given = targets[(weights == 0) & (targets != 0)]
    if len(given):
        parts["inputs"] = vocabulary.decode([int(t) for t in given])
    parts["targets"] = vocabulary.decode([int(t) for t in targets[weights > 0]])
    return parts
