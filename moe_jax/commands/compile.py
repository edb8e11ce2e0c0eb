"""`moe-jax compile`: what the TPU compiler says of a training step, on a machine without a TPU."""

import dataclasses
import math
import shlex
from collections.abc import Sequence
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax import experiment, strict_json
from moe_jax.commands.start import make_console
from moe_jax.errors import UserError
from moe_jax.pods import page as pages
from moe_jax.pods.answer import GIB, Answer
from moe_jax.pods.compiler import Job
from moe_jax.pods.sweep import Trial, answer, nearest_fit, sweep
from moe_jax.pods.topologies import parse, require_libtpu
from moe_jax.training.whole_file import write_whole


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """Flags of the command.

    Attributes:
        topology: such as `v4:8x8x8`.
        full: generate code too.
        sweep: try other ways to run.
        tokens: budget that chip-days are for.
        output_dir: where `compile.json` and `compile.md` are written; None for nowhere.
        command: the command line, for the page.
    """

    topology: str
    full: bool
    sweep: bool
    tokens: float
    output_dir: str | None
    command: list[str]


def compile_for(
    options: CompileOptions, files: list[str], bindings: list[str], search_paths: list[str]
) -> dict[str, Any]:
    """Compiles the step that gin files describe, prints what is known, and returns it.

    Args:
        options: flags.
        files: gin files.
        bindings: values over them.
        search_paths: where gin files are looked for.

    Raises:
        UserError: for an unknown topology, without the TPU compiler, or for a mistake in the
            configuration.
    """
    topology = parse(options.topology)
    if not 0 < options.tokens < math.inf:
        raise UserError(f"--tokens must be a number above 0, not {options.tokens}")
    # Mistakes are found, and what may not run is refused, before the compiler is started.
    experiment.load(files, bindings, search_paths)
    require_libtpu()
    console = make_console()
    job = Job(topology, files, bindings, search_paths, full=options.full)
    trials: list[Trial] = []
    console.print(topology.describe(), highlight=False)
    if options.sweep:
        trials = sweep(job, lambda trial: _say(console, trial))
        first = trials[0]
        if first.answer is None:
            raise UserError(f"nothing that was tried can be compiled: {first.error}")
        found = first.answer
    else:
        with console.status("the TPU compiler works ..."):
            found = answer(job)
    _print(console, found, options.tokens)
    result = found.as_dict(options.tokens)
    if trials:
        _print_trials(console, trials)
        result["trials"] = [_of_trial(trial, options.tokens) for trial in trials]
    elif not found.fits:
        result["nearest_fit"] = _nearest(console, job, found, options.tokens)
    if options.output_dir is not None:
        text = pages.page(found, shlex.join(options.command), options.tokens, trials)
        _write(console, epath.Path(options.output_dir), result, text)
    return result


def _say(console: Console, trial: Trial) -> None:
    console.print("  " + " | ".join(pages.trial_row(trial)), markup=False, highlight=False)


def _print(console: Console, found: Answer, tokens: float) -> None:
    for line in pages.summary_lines(found, tokens):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    tables: list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]] = [
        ("Memory (* while the step runs)", ("what", "GiB"), pages.memory_rows(found)),
        ("Time", ("what", "ms"), pages.time_rows(found)),
        (
            "Collectives, a device and step",
            pages.MOVED_COLUMNS,
            [pages.moved_row(row) for row in pages.shown_moves(found)],
        ),
    ]
    for title, columns, rows in tables:
        _print_table(console, title, columns, rows)
    console.print(f"Method: {found.method}.", markup=False, highlight=False)


def _print_trials(console: Console, trials: list[Trial]) -> None:
    rows = [pages.trial_row(trial) for trial in trials]
    _print_table(console, "Tried, the fastest that fits first", pages.TRIAL_COLUMNS, rows)
    best = trials[0].bindings
    if best:
        flags = " ".join(shlex.quote(f"--gin.{binding}") for binding in best)
        console.print(f"The first: {flags}", markup=False, highlight=False, soft_wrap=True)


def _print_table(
    console: Console, title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> None:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _nearest(console: Console, job: Job, found: Answer, tokens: float) -> dict[str, Any] | None:
    """Says what is large, and finds what fits."""
    largest = ", ".join(f"{what} {size / GIB:.2f} GiB" for what, size in found.memory.largest(3))
    console.print(f"The largest: {largest}", highlight=False, soft_wrap=True)
    with console.status("looking for what fits ..."):
        nearest = nearest_fit(job, lambda trial: _say(console, trial))
    if nearest is None or nearest.answer is None:
        console.print(
            "Nothing with less kept or smaller micro-batches fits: use more chips, or cut the "
            "weights over more of them (Mesh.fsdp, Mesh.tensor)",
            highlight=False,
            soft_wrap=True,
        )
        return None
    flags = " ".join(shlex.quote(f"--gin.{binding}") for binding in nearest.bindings)
    console.print(
        f"The nearest that fits: {flags} ({nearest.answer.memory.total / GIB:.2f} GiB)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return _of_trial(nearest, tokens)


def _of_trial(trial: Trial, tokens: float) -> dict[str, Any]:
    found = None if trial.answer is None else trial.answer.as_dict(tokens)
    return {
        "name": trial.name,
        "bindings": list(trial.bindings),
        "error": trial.error,
        "answer": found,
    }


def _write(console: Console, directory: epath.Path, result: dict[str, Any], text: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_whole(directory / "compile.json", strict_json.dumps(result, indent=1) + "\n")
    write_whole(directory / "compile.md", text)
    console.print(f"Written: {directory / 'compile.json'}, {directory / 'compile.md'}")
