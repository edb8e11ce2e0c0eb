"""An answer of the compiler as a page of Markdown, also for a terminal."""

from collections.abc import Iterable, Sequence

from moe_jax.formatting import decimal
from moe_jax.pods.answer import GIB, Answer, Moved
from moe_jax.pods.memory import AT_PEAK
from moe_jax.pods.sweep import Trial


def summary_lines(answer: Answer, tokens: float) -> list[str]:
    """Returns what a person wants to know first, a line each.

    Args:
        answer: of the compiler.
        tokens: budget that chip-days are for.
    """
    memory, limit = answer.memory, answer.topology.chip.hbm_limit_per_device
    lines = [
        f"{'Fits' if answer.fits else 'DOES NOT FIT'}: {decimal(memory.total / GIB, 2)} of "
        f"{limit / GIB:.2f} GiB a device"
    ]
    flops = (
        f"FLOPs: {decimal(answer.flops / 1e12, 1)} T a device as compiled, "
        f"{decimal(answer.model_flops / 1e12, 1)} T of the model"
    )
    if answer.bracket is None:
        largest = ", ".join(f"{what} {size / GIB:.2f} GiB" for what, size in memory.largest(3))
        lines += [f"The largest: {largest}", flops]
    else:
        step, utilisation, speed = _speed_lines(answer, tokens)
        lines += [step, utilisation, flops, speed]
    lines += [f"Warning: {text}" for text in answer.warnings]
    if answer.unknown_loops:
        lines.append(
            f"Not in the step time: {_loops(answer.unknown_loops)}, which runs only for what "
            "unevenly loaded experts leave over"
        )
    if answer.unpriced_kernels:
        kernels = ", ".join(sorted(set(answer.unpriced_kernels)))
        lines.append(f"Not in the step time: kernels that do not say what they cost ({kernels})")
    return lines


def _loops(names: Sequence[str]) -> str:
    first = f"a loop ({names[0]})"
    return first if len(names) == 1 else f"each of {len(names)} loops ({names[0]}, ...)"


def _speed_lines(answer: Answer, tokens: float) -> list[str]:
    """Returns what is known of a step that can run."""
    assert answer.bracket is not None
    fast, slow = answer.bracket
    days = answer.chip_days(tokens) or 0.0
    return [
        f"Step: {decimal(fast.seconds * 1e3, 0)} ms (links at their best) to "
        f"{decimal(slow.seconds * 1e3, 0)} ms (one torus axis at a time), estimated",
        f"MFU: {answer.utilisation(fast):.3f} to {answer.utilisation(slow):.3f} (model FLOPs, "
        "attention over the whole square)",
        f"Speed: {decimal(answer.tokens_per_second_per_chip or 0.0, 0)} tokens/s a chip; "
        f"{tokens:.3g} tokens take {decimal(days, 0)} chip-days "
        f"({decimal(days / answer.topology.chips, 1)} days)",
    ]


def memory_rows(answer: Answer) -> list[tuple[str, str]]:
    """Returns what holds memory and GiB a device, the largest first; * while the step runs."""
    return [
        (f"{what.removesuffix(AT_PEAK)} *" if what.endswith(AT_PEAK) else what, f"{size / GIB:.2f}")
        for what, size in answer.memory.rows
        if size > 0.005 * GIB
    ]


def time_rows(answer: Answer) -> list[tuple[str, str]]:
    """Returns what the step spends, in ms; nothing for a step that cannot run."""
    fast = answer.fastest
    if fast is None:
        return []
    found = {
        "matrix products": fast.matmul,
        "other instructions": fast.other,
        "waiting for copies between memories": fast.copies,
        "waiting for collectives": sum(fast.exposed.values()),
    }
    return [(what, decimal(seconds * 1e3, 1)) for what, seconds in found.items()]


MOVED_COLUMNS = ("collective", "mesh axes", "times", "GB", "at least GB", "ms", "of it exposed")


def moved_row(row: Moved) -> tuple[str, ...]:
    """Returns the cells of `MOVED_COLUMNS`."""
    return (
        row.kind,
        "?" if row.axes is None else " x ".join(row.axes) or "none",
        f"{row.count:,.0f}",
        decimal(row.bytes / 1e9, 3),
        decimal(row.bound_bytes / 1e9, 3) if row.bound_bytes else "-",
        "-" if row.seconds is None else decimal(row.seconds * 1e3, 1),
        "-" if row.exposed is None else decimal(row.exposed * 1e3, 1),
    )


def shown_moves(answer: Answer) -> list[Moved]:
    """Returns the collectives that matter: a megabyte or more, or with a bound."""
    return [row for row in answer.moved if row.bytes > 1e6 or row.bound_bytes > 1e6]


TRIAL_COLUMNS = ("what", "fits", "GiB", "step ms", "MFU")


def trial_row(trial: Trial) -> tuple[str, ...]:
    """Returns the cells of `TRIAL_COLUMNS`."""
    found = trial.answer
    if trial.least_bytes:
        return trial.name, "no", f"> {trial.least_bytes / GIB:.2f}", "-", "-"
    if found is None:
        return trial.name, "refused", "-", "-", " ".join(trial.error.split())[:120]
    size = decimal(found.memory.total / GIB, 2)
    if found.bracket is None:
        return trial.name, "no", size, "-", "-"
    fast, slow = found.bracket
    return (
        trial.name,
        "yes",
        size,
        f"{decimal(fast.seconds * 1e3, 0)} .. {decimal(slow.seconds * 1e3, 0)}",
        f"{found.utilisation(fast):.3f} .. {found.utilisation(slow):.3f}",
    )


def page(answer: Answer, command: str, tokens: float, trials: Iterable[Trial] = ()) -> str:
    """Returns the whole page.

    Args:
        answer: of the compiler.
        command: that made it.
        tokens: budget that chip-days are for.
        trials: of a sweep, or of what was tried where it does not fit.
    """
    mesh = " x ".join(f"{axis} {size}" for axis, size in answer.mesh.items() if size > 1)
    parts = [(part, decimal(seconds * 1e3, 1)) for part, seconds in answer.parts.items()]
    moved = [moved_row(row) for row in shown_moves(answer)]
    blocks = [
        f"# {answer.topology}: {mesh or 'one device'}",
        f"```bash\n{command}\n```",
        "\n".join(f"- {line}" for line in summary_lines(answer, tokens)),
        "## Memory, GiB a device\n\n" + table(("what", "GiB"), memory_rows(answer)),
        "\\* while the step runs, when the most is alive.",
    ]
    if answer.fits:
        blocks += [
            "## Time, ms a step\n\n" + table(("what", "ms"), time_rows(answer)),
            "Computation by part of the step:\n\n" + table(("part", "ms"), parts),
        ]
    blocks += [
        "## Collectives, a device and step\n\n" + table(MOVED_COLUMNS, moved),
        f"Method: {answer.method}.",
    ]
    tried = [trial_row(trial) for trial in trials]
    if tried:
        blocks.append("## Tried\n\n" + table(TRIAL_COLUMNS, tried))
    return "\n\n".join(blocks) + "\n"


def table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a table in Markdown; the first column is text, the others are figures."""
    lines = [columns, ("---", *("---:" for _ in columns[1:])), *rows]
    escaped = ((cell.replace("|", r"\|") for cell in cells) for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)
