"""`moe-jax compile`: report of a training step by the TPU compiler, without a TPU."""

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

from moe_jax import experiments, strict_json
from moe_jax.commands.console import make_main_console
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.topologies import parse_topology, require_libtpu
from moe_jax.errors import Interrupted, UserError
from moe_jax.pods import markdown
from moe_jax.pods.compiler import CompileJob, ProgressCallback
from moe_jax.pods.fit import minimum_chips, nearest_fit, smallest_slice
from moe_jax.pods.report import GIB, CompileReport
from moe_jax.pods.sweep import (
    Trial,
    TrialObserver,
    compile_and_report,
    load_experiment,
    minimum_bytes,
    ranked,
    sweep,
)
from moe_jax.training.run_directory.atomic_file import write_atomically
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class CompileOptions:
    """Flags of the command.

    Attributes:
        topology: such as `v4:8x8x8`.
        full: whether to generate code.
        sweep: whether to search for the fastest variant.
        tokens: token budget for chip-days.
        output_dir: directory for `compile.json` and `compile.md`; None to write neither.
        command: the command line, for the page.
        variants: whether to search for a variant that fits, where the configuration does not.
    """

    topology: str
    full: bool
    sweep: bool
    tokens: float
    output_dir: str | None
    command: list[str]
    variants: bool = True


def compile_for(options: CompileOptions, source: ConfigSource) -> dict[str, Any]:
    """Compiles the configured training step, prints its report, and returns it.

    The report is printed, and written, before variants are tried.

    Args:
        options: flags of the verb.
        source: the configuration.

    Raises:
        UserError: for an unknown topology, if the TPU compiler is missing, or for a mistake in the
            configuration.
        Interrupted: by Ctrl-C after the report, with the results so far.
    """
    topology = parse_topology(options.topology)
    if not 0 < options.tokens < math.inf:
        raise UserError(f"--tokens must be a number above 0, not {options.tokens}")
    # Mistakes are found, and what may not run is refused, before the compiler is started.
    experiments.load(source)
    if options.sweep and not options.variants:
        raise UserError("--sweep tries variants, and --no_variants none: give one of them")
    require_libtpu()
    console = make_main_console()
    job = CompileJob(topology, source, full=options.full)
    console.print(topology.describe(), highlight=False)
    if options.sweep:
        return _sweep(console, options, job)
    with waiting("reading the configuration"):
        minimum = minimum_bytes(job)
    _print_minimum(console, job, minimum)
    with waiting(f"compiling for {topology}") as wait:
        report = compile_and_report(job, wait.say)
    _print_report(console, report, options.tokens)
    result = report.as_dict(options.tokens)
    _write(console, options, report, result)
    if not report.fits and options.variants:
        trials = _search_fit(console, job, report, result, options.tokens)
        _write(console, options, report, result, trials)
    return result


def _sweep(console: Console, options: CompileOptions, job: CompileJob) -> dict[str, Any]:
    """Tries variants, and prints and returns the best."""
    observer, stopped = _TrialPrinter(console, options.tokens), False
    try:
        trials = sweep(job, observer)
    except KeyboardInterrupt:
        trials, stopped = ranked(observer.trials), True
        if not any(trial.report for trial in trials):
            raise
    best = trials[0]
    if best.report is None:
        raise UserError(f"no variant can be compiled: {best.error}")
    _print_report(console, best.report, options.tokens)
    _print_trials(console, trials)
    result = best.report.as_dict(options.tokens)
    result["trials"] = [_trial_dict(trial, options.tokens) for trial in trials]
    _write(console, options, best.report, result, trials)
    if stopped:
        raise Interrupted(signal.SIGINT, "Stopped: the best trial is above", result)
    return result


class _TrialPrinter(TrialObserver):
    """Shows running trials and prints their results; with `tokens`, the first report at length."""

    def __init__(self, console: Console, tokens: float | None = None):
        self._console, self._tokens, self.trials = console, tokens, list[Trial]()

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[ProgressCallback]:
        with waiting(name) as wait:
            yield wait.say

    def finished(self, trial: Trial) -> None:
        self.trials.append(trial)
        if self._tokens is not None and trial.report is not None:
            for line in markdown.summary_lines(trial.report, self._tokens):
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._tokens = None
        row = "  " + " | ".join(markdown.trial_row(trial))
        self._console.print(row, markup=False, highlight=False, soft_wrap=True)


def _print_minimum(console: Console, job: CompileJob, minimum: dict[str, int]) -> None:
    """Prints before the compilation that the state alone does not fit, if so."""
    limit = job.topology.chip.hbm_limit_per_device
    if sum(minimum.values()) <= limit:
        return
    sizes = [f"{what} {size / GIB:.2f} GiB" for what, size in minimum.items() if size > 0.005 * GIB]
    console.print(
        f"DOES NOT FIT: {', '.join(sizes)} a device, of {limit / GIB:.2f} GiB; the "
        "compiler's report follows",
        highlight=False,
        soft_wrap=True,
    )


def _print_report(console: Console, report: CompileReport, tokens: float) -> None:
    for line in markdown.summary_lines(report, tokens):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    tables: list[tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]] = [
        ("Memory (* while the step runs)", ("what", "GiB"), markdown.memory_rows(report)),
        ("Time", ("what", "ms"), markdown.time_rows(report)),
        (
            "Collectives, a device and step",
            markdown.COLLECTIVE_COLUMNS,
            [markdown.collective_row(row) for row in markdown.large_collectives(report)],
        ),
    ]
    for title, columns, rows in tables:
        if rows:
            _print_table(console, title, columns, rows)
    console.print(f"Method: {report.method}.", markup=False, highlight=False)


def _print_trials(console: Console, trials: list[Trial]) -> None:
    rows = [markdown.trial_row(trial) for trial in trials]
    _print_table(console, "Tried, the fastest that fits first", markdown.TRIAL_COLUMNS, rows)
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
    """Returns the command-line flags of a trial's changes."""
    files = [shlex.quote(f"--gin_file={file}") for file in trial.files]
    return " ".join([*files, *(shlex.quote(f"--gin.{binding}") for binding in trial.bindings)])


def _search_fit(
    console: Console, job: CompileJob, report: CompileReport, result: dict[str, Any], tokens: float
) -> list[Trial]:
    """Searches for a variant that fits, prints it and adds it to the result; returns the trials."""
    topology = job.topology
    result |= {"nearest_fit": None, "variants": []}
    with waiting("counting the chips that the state needs"):
        chips = minimum_chips(load_experiment(job), topology)
    if chips > topology.chips:
        slice_name = smallest_slice(topology, chips)
        text = (
            f"No mesh of {topology.chips} chips fits: parameters and optimiser state fill "
            f"{chips:,} chips, perfectly sharded and without temporaries. Use more chips"
            + (f" ({slice_name} or larger)" if slice_name else "")
        )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return []
    observer = _TrialPrinter(console)
    try:
        trials = nearest_fit(job, report, observer)
    except KeyboardInterrupt:
        message = "Stopped while searching for a variant that fits: the report above is complete"
        raise Interrupted(signal.SIGINT, message, result) from None
    finally:
        result["variants"] = [_trial_dict(trial, tokens) for trial in observer.trials]
    if not trials or not trials[-1].fits:
        text = (
            "No other mesh, remat policy or micro-batch size fits: use more chips, or shard the "
            "weights over more of them (Mesh.fsdp, Mesh.tensor)"
        )
    else:
        nearest = trials[-1]
        assert nearest.report is not None
        text = (
            f"The nearest that fits: {_flags(nearest)} "
            f"({nearest.report.memory.total / GIB:.2f} GiB)"
        )
        result["nearest_fit"] = _trial_dict(nearest, tokens)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
    return trials


def _trial_dict(trial: Trial, tokens: float) -> dict[str, Any]:
    report = None if trial.report is None else trial.report.as_dict(tokens)
    return {
        "name": trial.name,
        "files": list(trial.files),
        "bindings": list(trial.bindings),
        "error": trial.error,
        "least_bytes": trial.minimum_bytes or None,
        "answer": report,
    }


def _write(
    console: Console,
    options: CompileOptions,
    report: CompileReport,
    result: dict[str, Any],
    trials: Sequence[Trial] = (),
) -> None:
    """Writes the report, and again with the trials once they are known."""
    if options.output_dir is None:
        return
    directory = epath.Path(options.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    text = markdown.markdown_page(report, shlex.join(options.command), options.tokens, trials)
    write_atomically(directory / "compile.json", strict_json.dumps(result, indent=1) + "\n")
    write_atomically(directory / "compile.md", text)
    console.print(f"Written: {directory / 'compile.json'}, {directory / 'compile.md'}")
