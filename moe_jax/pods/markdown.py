"""Text of a compile report: summary lines, table rows, and a page of Markdown."""

from collections.abc import Iterable, Sequence

from moe_jax.cost_model.memory_usage import AT_PEAK
from moe_jax.formatting import decimal
from moe_jax.pods.report import GIB, CollectiveSummary, CompileReport
from moe_jax.pods.sweep import Trial


def summary_lines(report: CompileReport, tokens: float) -> list[str]:
    """Returns the summary of a report, one line each.

    Args:
        report: of a compiled step.
        tokens: token budget for chip-days.
    """
    memory, limit = report.memory, report.topology.chip.hbm_limit_per_device
    lines = [
        f"{'Fits' if report.fits else 'DOES NOT FIT'}: {decimal(memory.total / GIB, 2)} of "
        f"{limit / GIB:.2f} GiB a device"
    ]
    flops = (
        f"FLOPs: {decimal(report.flops / 1e12, 1)} T a device as compiled, "
        f"{decimal(report.model_flops / 1e12, 1)} T of the model"
    )
    if report.bracket is None:
        largest = ", ".join(f"{what} {size / GIB:.2f} GiB" for what, size in memory.largest(3))
        lines += [f"The largest: {largest}", flops]
    else:
        step, utilisation, throughput = _throughput_lines(report, tokens)
        lines += [step, utilisation, flops, throughput]
    lines += [f"Warning: {text}" for text in report.warnings]
    if report.unknown_loops:
        lines.append(
            f"Not in the step time: {_loops(report.unknown_loops)}, which runs only for the "
            "overflow of unevenly loaded experts"
        )
    if report.unpriced_kernels:
        kernels = ", ".join(sorted(set(report.unpriced_kernels)))
        lines.append(f"Not in the step time: kernels without a cost estimate ({kernels})")
    return lines


def _loops(names: Sequence[str]) -> str:
    first = f"a loop ({names[0]})"
    return first if len(names) == 1 else f"each of {len(names)} loops ({names[0]}, ...)"


def _throughput_lines(report: CompileReport, tokens: float) -> list[str]:
    """Returns the lines of time, MFU and throughput of a step that fits."""
    assert report.bracket is not None
    fast, slow = report.bracket
    days = report.chip_days(tokens) or 0.0
    return [
        f"Step: {decimal(fast.seconds * 1e3, 0)} ms (all links) to "
        f"{decimal(slow.seconds * 1e3, 0)} ms (one torus axis at a time), estimated",
        f"MFU: {report.utilisation(fast):.3f} to {report.utilisation(slow):.3f} (model FLOPs, "
        "attention over the whole square)",
        f"Speed: {decimal(report.tokens_per_second_per_chip or 0.0, 0)} tokens/s a chip; "
        f"{tokens:.3g} tokens take {decimal(days, 0)} chip-days "
        f"({decimal(days / report.topology.chips, 1)} days)",
    ]


def memory_rows(report: CompileReport) -> list[tuple[str, str]]:
    """Returns consumers of memory and GiB per device, in descending order; * for temporaries."""
    return [
        (f"{what.removesuffix(AT_PEAK)} *" if what.endswith(AT_PEAK) else what, f"{size / GIB:.2f}")
        for what, size in report.memory.consumers
        if size > 0.005 * GIB
    ]


def time_rows(report: CompileReport) -> list[tuple[str, str]]:
    """Returns the time of the step by category, ms; no rows for a step that does not fit."""
    fast = report.fastest
    if fast is None:
        return []
    found = {
        "matrix products": fast.matmul,
        "other instructions": fast.other,
        "waiting for copies between memories": fast.copies,
        "waiting for collectives": sum(fast.exposed.values()),
    }
    return [(what, decimal(seconds * 1e3, 1)) for what, seconds in found.items()]


COLLECTIVE_COLUMNS = (
    "collective",
    "mesh axes",
    "count",
    "GB",
    "bound GB",
    "ms",
    "exposed ms",
)


def collective_row(row: CollectiveSummary) -> tuple[str, ...]:
    """Returns the cells of `COLLECTIVE_COLUMNS`."""
    return (
        row.kind,
        "?" if row.axes is None else " x ".join(row.axes) or "none",
        f"{row.count:,.0f}",
        decimal(row.bytes / 1e9, 3),
        decimal(row.bound_bytes / 1e9, 3) if row.bound_bytes else "-",
        "-" if row.seconds is None else decimal(row.seconds * 1e3, 1),
        "-" if row.exposed is None else decimal(row.exposed * 1e3, 1),
    )


def large_collectives(report: CompileReport) -> list[CollectiveSummary]:
    """Returns the collectives whose payload or lower bound exceeds a megabyte."""
    return [row for row in report.collectives if row.bytes > 1e6 or row.bound_bytes > 1e6]


TRIAL_COLUMNS = ("what", "fits", "GiB", "step ms", "MFU")


def trial_row(trial: Trial) -> tuple[str, ...]:
    """Returns the cells of `TRIAL_COLUMNS`."""
    report = trial.report
    if trial.minimum_bytes:
        return trial.name, "no", f"> {trial.minimum_bytes / GIB:.2f}", "-", "-"
    if report is None:
        return trial.name, "refused", "-", "-", " ".join(trial.error.split())[:120]
    size = decimal(report.memory.total / GIB, 2)
    if report.bracket is None:
        return trial.name, "no", size, "-", "-"
    fast, slow = report.bracket
    return (
        trial.name,
        "yes",
        size,
        f"{decimal(fast.seconds * 1e3, 0)} .. {decimal(slow.seconds * 1e3, 0)}",
        f"{report.utilisation(fast):.3f} .. {report.utilisation(slow):.3f}",
    )


def markdown_page(
    report: CompileReport, command: str, tokens: float, trials: Iterable[Trial] = ()
) -> str:
    """Returns the whole page.

    Args:
        report: of a compiled step.
        command: command line that made the report.
        tokens: token budget for chip-days.
        trials: of a sweep, or of the search for a configuration that fits.
    """
    mesh = " x ".join(f"{axis} {size}" for axis, size in report.mesh.items() if size > 1)
    parts = [(part, decimal(seconds * 1e3, 1)) for part, seconds in report.parts.items()]
    collectives = [collective_row(row) for row in large_collectives(report)]
    blocks = [
        f"# {report.topology}: {mesh or 'one device'}",
        f"```bash\n{command}\n```",
        "\n".join(f"- {line}" for line in summary_lines(report, tokens)),
        "## Memory, GiB a device\n\n" + markdown_table(("what", "GiB"), memory_rows(report)),
        "\\* while the step runs, when the most is alive.",
    ]
    if report.fits:
        blocks += [
            "## Time, ms a step\n\n" + markdown_table(("what", "ms"), time_rows(report)),
            "Computation by part of the step:\n\n" + markdown_table(("part", "ms"), parts),
        ]
    blocks += [
        "## Collectives, a device and step\n\n" + markdown_table(COLLECTIVE_COLUMNS, collectives),
        f"Method: {report.method}.",
    ]
    tried = [trial_row(trial) for trial in trials]
    if tried:
        blocks.append("## Tried\n\n" + markdown_table(TRIAL_COLUMNS, tried))
    return "\n\n".join(blocks) + "\n"


def markdown_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a table in Markdown; the first column is text, the others are numbers."""
    lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
    escaped = ((cell.replace("|", r"\|") for cell in cells) for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
