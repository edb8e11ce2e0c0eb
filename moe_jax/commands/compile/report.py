"""`moe-jax compile`: what the TPU compiler says of a training step, on a machine without a TPU."""

import contextlib
import dataclasses
import math
import shlex
import signal
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax import experiment, strict_json
from moe_jax.commands.console import make_main_console
from moe_jax.config_source import ConfigSource
from moe_jax.errors import Interrupted, UserError
from moe_jax.pods import page as pages
from moe_jax.pods.answer import GIB, Answer
from moe_jax.pods.compiler import Job, Say
from moe_jax.pods.fit import least_chips, nearest_fit, slice_of
from moe_jax.pods.sweep import Trial, Watch, answer, least_bytes, load_job, ranked, sweep
from moe_jax.pods.topologies import parse, require_libtpu
from moe_jax.training.run_directory.atomic_file import write_atomically
from moe_jax.waiting import waiting


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
        variants: look for what fits, where the configuration does not.
    """

    topology: str
    full: bool
    sweep: bool
    tokens: float
    output_dir: str | None
    command: list[str]
    variants: bool = True


def compile_for(options: CompileOptions, source: ConfigSource) -> dict[str, Any]:
    """Compiles the configured training step, and prints and returns the answer.

    The answer is printed, and written, before other ways to run are tried.

    Args:
        options: flags of the verb.
        source: the configuration.

    Raises:
        UserError: for an unknown topology, without the TPU compiler, or for a mistake in the
            configuration.
        Interrupted: by Ctrl-C after the answer, with what is known so far.
    """
    topology = parse(options.topology)
    if not 0 < options.tokens < math.inf:
        raise UserError(f"--tokens must be a number above 0, not {options.tokens}")
    # Mistakes are found, and what may not run is refused, before the compiler is started.
    experiment.load(source)
    if options.sweep and not options.variants:
        raise UserError("--sweep tries variants, and --no_variants none: give one of them")
    require_libtpu()
    console = make_main_console()
    job = Job(topology, source.files, source.bindings, source.search_paths, full=options.full)
    console.print(topology.describe(), highlight=False)
    if options.sweep:
        return _sweep(console, options, job)
    with waiting("reading the configuration"):
        least = least_bytes(job)
    _print_least(console, job, least)
    with waiting(f"compiling for {topology}") as wait:
        found = answer(job, wait.say)
    _print(console, found, options.tokens)
    result = found.as_dict(options.tokens)
    _write(console, options, found, result)
    if not found.fits and options.variants:
        trials = _what_fits(console, job, found, result, options.tokens)
        _write(console, options, found, result, trials)
    return result


def _sweep(console: Console, options: CompileOptions, job: Job) -> dict[str, Any]:
    """Tries other ways to run, and prints and returns the best."""
    watch, stopped = _Printed(console, options.tokens), False
    try:
        trials = sweep(job, watch)
    except KeyboardInterrupt:
        trials, stopped = ranked(watch.trials), True
        if not any(trial.answer for trial in trials):
            raise
    first = trials[0]
    if first.answer is None:
        raise UserError(f"nothing that was tried can be compiled: {first.error}")
    _print(console, first.answer, options.tokens)
    _print_trials(console, trials)
    result = first.answer.as_dict(options.tokens)
    result["trials"] = [_of_trial(trial, options.tokens) for trial in trials]
    _write(console, options, first.answer, result, trials)
    if stopped:
        raise Interrupted(signal.SIGINT, "Stopped: the best of what was tried is above", result)
    return result


class _Printed(Watch):
    """Shows what is tried, and prints what became of it; the first answer at length."""

    def __init__(self, console: Console, tokens: float | None = None):
        self._console, self._tokens, self.trials = console, tokens, list[Trial]()

    @contextlib.contextmanager
    def trying(self, what: str) -> Iterator[Say]:
        with waiting(what) as wait:
            yield wait.say

    def tried(self, trial: Trial) -> None:
        self.trials.append(trial)
        if self._tokens is not None and trial.answer is not None:
            for line in pages.summary_lines(trial.answer, self._tokens):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._tokens = None
        row = "  " + " | ".join(pages.trial_row(trial))
        self._console.print(row, markup=False, highlight=False, soft_wrap=True)


def _print_least(console: Console, job: Job, least: dict[str, int]) -> None:
    """Says at once what cannot fit, before the compiler is asked for all of it."""
    limit = job.topology.chip.hbm_limit_per_device
    if sum(least.values()) <= limit:
        return
    sizes = [f"{what} {size / GIB:.2f} GiB" for what, size in least.items() if size > 0.005 * GIB]
    console.print(
        f"DOES NOT FIT: {', '.join(sizes)} a device, of {limit / GIB:.2f} GiB; what the compiler "
        "says of the rest follows",
        highlight=False,
        soft_wrap=True,
    )


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
        if rows:
            _print_table(console, title, columns, rows)
    console.print(f"Method: {found.method}.", markup=False, highlight=False)


def _print_trials(console: Console, trials: list[Trial]) -> None:
    rows = [pages.trial_row(trial) for trial in trials]
    _print_table(console, "Tried, the fastest that fits first", pages.TRIAL_COLUMNS, rows)
    if flags := _flags(trials[0]):
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


def _flags(trial: Trial) -> str:
    """Returns the flags that make a trial of the command."""
    files = [shlex.quote(f"--gin_file={file}") for file in trial.files]
    return " ".join([*files, *(shlex.quote(f"--gin.{binding}") for binding in trial.bindings)])


def _what_fits(
    console: Console, job: Job, found: Answer, result: dict[str, Any], tokens: float
) -> list[Trial]:
    """Looks for what fits and says so; puts it into the result, and returns what was tried."""
    topology = job.topology
    result |= {"nearest_fit": None, "variants": []}
    with waiting("counting the chips that the state needs"):
        chips = least_chips(load_job(job), topology)
    if chips > topology.chips:
        named = slice_of(topology, chips)
        text = (
            f"No mesh of {topology.chips} chips fits: parameters and optimiser state fill "
            f"{chips:,} chips, each with its part and nothing else. Use more chips"
            + (f" ({named} or larger)" if named else "")
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return []
    watch = _Printed(console)
    try:
        trials = nearest_fit(job, found, watch)
    except KeyboardInterrupt:
        message = "Stopped while looking for what fits: the answer above stands"
        raise Interrupted(signal.SIGINT, message, result) from None
    finally:
        result["variants"] = [_of_trial(trial, tokens) for trial in watch.trials]
    if not trials or not trials[-1].fits:
        text = (
            "No other mesh, and nothing with less kept or smaller micro-batches fits: use more "
            "chips, or cut the weights over more of them (Mesh.fsdp, Mesh.tensor)"
        )
    else:
        nearest = trials[-1]
        assert nearest.answer is not None
        text = (
            f"The nearest that fits: {_flags(nearest)} "
            f"({nearest.answer.memory.total / GIB:.2f} GiB)"
        )
        result["nearest_fit"] = _of_trial(nearest, tokens)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return trials


def _of_trial(trial: Trial, tokens: float) -> dict[str, Any]:
    found = None if trial.answer is None else trial.answer.as_dict(tokens)
    return {
        "name": trial.name,
        "files": list(trial.files),
        "bindings": list(trial.bindings),
        "error": trial.error,
        "least_bytes": trial.least_bytes or None,
        "answer": found,
    }


def _write(
    console: Console,
    options: CompileOptions,
    found: Answer,
    result: dict[str, Any],
    trials: Sequence[Trial] = (),
) -> None:
    """Writes the answer, and again with the trials once they are known."""
    if options.output_dir is None:
        return
    directory = epath.Path(options.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    text = pages.page(found, shlex.join(options.command), options.tokens, trials)
    write_atomically(directory / "compile.json", strict_json.dumps(result, indent=1) + "\n")
    write_atomically(directory / "compile.md", text)
    console.print(f"Written: {directory / 'compile.json'}, {directory / 'compile.md'}")
