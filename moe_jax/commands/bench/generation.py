"""`moe-jax bench generate`: tokens per second of generation by batch size."""

import dataclasses
from typing import Any

from rich.table import Table

from moe_jax import experiments
from moe_jax.benchmarks import generation
from moe_jax.commands.console import line_printer, make_console
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.formatting import decimal
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


def read_batches(text: str) -> list[int]:
    """Returns the batch sizes of a flag such as `1,8,64`.

    Raises:
        UserError: if they are not numbers above 0.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"--batches must be numbers above 0, such as 1,8,64, not {text!r}")
    return [int(part) for part in parts]


def bench_generate(
    source: ConfigSource, batches: list[int], tokens: int, rounds: int, debug: bool = False
) -> dict[str, Any]:
    """Prints tokens per second, beside a dense model of equal active FLOPs.

    Raises:
        UserError: for a mistake in the configuration, and for beam search.
    """
    loaded = experiments.load(source)
    if loaded.sampling.beams > 1:
        raise UserError("bench generate measures sampling: set Sampling.beams = 1")
    console = make_console()
    what = f"measuring batches of {', '.join(map(str, batches))}, {rounds} rounds"
    with waiting(what), suppress_library_output(debug):
        times = generation.measure(loaded, batches, tokens, rounds)
    table = Table(
        *("batch", "prompts: ms", "of dense", "new tokens/s", "x batch " + str(batches[0])),
        *("dense: tokens/s", "of dense", "middle half of rounds"),
        title=f"Generation, {', '.join(source.files)}, {tokens} new tokens, {rounds} rounds",
    )
    for row in times.rows:
        table.add_row(
            str(row.batch),
            decimal(row.prefill_seconds * 1e3, 1),
            f"{row.prefill_ratio:.2f}",
            decimal(row.decode_tokens_per_second, 0),
            f"{row.speed_up:.2f}",
            decimal(row.dense_tokens_per_second, 0),
            f"{row.decode_ratio:.2f}",
            f"{row.decode_ratio_low:.2f} to {row.decode_ratio_high:.2f}",
        )
    console.print(table)
    line_printer(console)(
        f"random weights: {times.experts_per_token:.2f} experts per token; the dense model has the "
        f"active FLOPs of {loaded.experts_per_token:g} (Model.d_ff = {times.dense_width})"
    )
    return {
        "rows": [dataclasses.asdict(row) for row in times.rows],
        "new_tokens": tokens,
        "experts_per_token": times.experts_per_token,
        "dense_width": times.dense_width,
    }
