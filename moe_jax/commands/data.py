"""`moe-jax data list | show | stats | cache`: what there is to train on, and what it looks like."""

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from moe_jax import experiment
from moe_jax.commands.console import make_console
from moe_jax.commands.quiet import quiet
from moe_jax.data.config import DataConfig
from moe_jax.formatting import printable
from moe_jax.waiting import waiting

if TYPE_CHECKING:
    from moe_jax.data.tasks.registry import RegisteredTask

# Characters of a text that are shown.
_SHOWN = 1000


def load_data(
    task: str | None, files: list[str], bindings: list[str], search_paths: list[str]
) -> DataConfig:
    """Returns the data that gin files and bindings describe, of another task if one is named."""
    described = experiment.load_data(files, bindings, search_paths)
    return described if task is None else dataclasses.replace(described, task=task)


def list_tasks(debug: bool = False) -> dict[str, Any]:
    """Prints the tasks and mixtures that `Data.task` can name."""
    with waiting("listing the tasks"), quiet(debug):
        from moe_jax.data.tasks import catalog

        definitions, suites = catalog.definitions(), catalog.mixtures()
    console = make_console()
    texts = Table("text", "what it is", title="Plain text, to pre-train on", title_justify="left")
    texts.add_row("embedded", "the English corpus in the package: novels and speeches")
    for name, text in catalog.PLAIN_TEXTS.items():
        texts.add_row(name, f"{text.description}; TFDS {text.source}")
    for prefix, what in catalog.USER_FILE_KINDS.items():
        texts.add_row(f"{prefix}:FILES" if prefix != "tfds" else "tfds:NAME", what)
    console.print(texts)
    title = "Tasks with inputs and targets"
    prompted = Table("task", "training rows", "TFDS source", title=title, title_justify="left")
    short = {full: name for name, full in catalog.short_names().items()}
    for name, definition in definitions.items():
        rows = f"{definition.num_train_examples:,}" if definition.num_train_examples else "none"
        prompted.add_row(short.get(name, name), rows, definition.source)
    console.print(prompted)
    mixtures = Table(
        "mixture", "tasks, at rates by their rows", title="Mixtures", title_justify="left"
    )
    for name, rates in suites.items():
        mixtures.add_row(name, ", ".join(task for task, rate in rates.items() if rate))
    console.print(mixtures)
    console.print(
        "Look at one: moe-jax data show NAME. Train on one: --gin.TASK=NAME. Full names, as in "
        "T5, work too (glue_sst2_v002).",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    return {
        "texts": ["embedded", *catalog.PLAIN_TEXTS],
        "tasks": list(definitions),
        "mixtures": {name: dict(rates) for name, rates in suites.items()},
    }


def show(config: DataConfig, split: str, examples: int, debug: bool = False) -> dict[str, Any]:
    """Prints a task's splits and some rows of one as the model gets them.

    Raises:
        UserError: if the task or the split is not there.
    """
    console = make_console()
    with waiting(f"reading {printable(config.task_name)}"), quiet(debug):
        from moe_jax.data.pipeline import input_pipeline
        from moe_jax.data.pipeline.model_features import get_dataset

        task = _find(config, console)
        vocabulary = input_pipeline.vocabulary_of(config)
        rows = get_dataset(config, split, training=False).as_numpy_iterator()
        shown = list(itertools.islice(rows, examples))
    name = escape(printable(config.task_name))
    console.print(f"[bold]{name}[/bold], {task.kind}", highlight=False)
    console.print(
        f"splits: {', '.join(sorted(task.provider.splits))}; vocabulary of "
        f"{vocabulary.vocab_size:,} tokens; rows of {config.sequence_length}",
        highlight=False,
        markup=False,
    )
    for note in task.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if not shown:
        console.print(f"there is nothing in the split {split!r}", highlight=False)
    result = [_shown(row, vocabulary) for row in shown]
    for number, parts in enumerate(result, 1):
        tokens, weighted = parts["tokens"], parts["tokens_in_loss"]
        console.print(
            f"\n[bold]{escape(split)} {number}[/bold]: {tokens} tokens, {weighted} in the loss",
            highlight=False,
        )
        for name in ("inputs", "targets"):
            if name in parts:
                text = parts[name] if len(parts[name]) <= _SHOWN else parts[name][:_SHOWN] + " ..."
                console.print(f"[dim]{name}:[/dim] {escape(text)}", highlight=False)
    return {"task": config.task_name, "splits": sorted(task.provider.splits), "examples": result}


def _find(config: DataConfig, console: Console) -> "RegisteredTask":
    """Finds a task, and says how far it is where reading a user's files takes long."""
    from moe_jax.data.sources.file_discovery import progress_to
    from moe_jax.data.tasks.registry import find_task

    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with progress_to(say):
        return find_task(config)


def _shown(row: dict[str, Any], vocabulary: Any) -> dict[str, Any]:
    """Returns the text of a row: what is given, and what is to be predicted."""
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


def stats(config: DataConfig, split: str, limit: int, debug: bool = False) -> dict[str, Any]:
    """Prints how many examples, tokens and rows a split has, and how full the rows are.

    Raises:
        UserError: if the task or the split is not there.
    """
    console = make_console()
    with waiting(f"reading {printable(config.task_name)}"), quiet(debug):
        from moe_jax.data.pipeline.statistics import compute_statistics

        notes = _find(config, console).notes
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
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    what = "the first " if limit and found.examples >= limit else ""
    console.print(f"{what}{found.examples:,} examples", highlight=False)
    console.print(table)
    console.print(
        f"{found.rows:,} rows of {config.sequence_length} tokens: {found.fill:.1%} of them text, "
        f"{found.loss_share:.1%} of that in the loss" + ("" if config.pack else " (not packed)"),
        highlight=False,
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


def cache(
    config: DataConfig, output_dir: str, force: bool = False, debug: bool = False
) -> dict[str, Any]:
    """Tokenises a task into a directory that `Data.cache_dir` reads, and prints what is in it.

    Raises:
        UserError: if the task cannot be cached, or is in the directory already.
    """
    console = make_console()
    with waiting(f"tokenising {printable(config.task_name)}"), quiet(debug):
        from moe_jax.data.pipeline.task_cache import cache_task

        _find(config, console)
        written = cache_task(config, output_dir, force)
    table = Table("task, in the cache", "split", "examples")
    for name, splits in written.items():
        for split, examples in splits.items():
            table.add_row(name, split, f"{examples:,}")
    console.print(table)
    console.print(
        f"Read it with --gin.Data.cache_dir={output_dir}", highlight=False, soft_wrap=True
    )
    return {"cache_dir": output_dir, "tasks": written}
