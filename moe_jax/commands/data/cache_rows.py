"""`moe-jax data cache --rows`: the rows of a run, which are then read without TensorFlow."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.table import Table

from moe_jax import config as configuration
from moe_jax.commands.console import line_printer, make_console
from moe_jax.commands.data.task import find_task
from moe_jax.data.config import DataConfig
from moe_jax.errors import UserError
from moe_jax.formatting import printable
from moe_jax.library_output import suppress_library_output
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class RowOptions:
    """Flags of the action.

    Attributes:
        output_dir: the directory to write, for `Data.rows_dir`.
        steps: number of training steps; None for those of the configuration, or one epoch.
        seeds: seeds of the data order, separated by commas; None for `Data.seed`.
        force: replace cached rows.
        debug: show the output of libraries.
    """

    output_dir: str
    steps: int | None = None
    seeds: str | None = None
    force: bool = False
    debug: bool = False


def cache_rows(config: DataConfig, options: RowOptions) -> dict[str, Any]:
    """Writes the rows of the configuration that was parsed last, and prints what was written.

    Raises:
        UserError: if the rows cannot be cached, or for flags that are not valid.
    """
    if "://" in options.output_dir:
        raise UserError(
            f"--output_dir={options.output_dir}: cache locally, then copy the directory there"
        )
    seeds = _parse_seeds(options.seeds, config)
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps must be above 0, not {options.steps}")
    steps = options.steps or _configured_steps()
    console = make_console()
    say = line_printer(console)
    with waiting(f"reading {printable(config.task_name)}"), suppress_library_output(options.debug):
        from moe_jax.data.pipeline import row_cache

        find_task(config, console)
        steps = steps or row_cache.steps_of_an_epoch(config)
    target = Path(options.output_dir).expanduser()
    plan = row_cache.RowPlan(config, steps, seeds, target, options.force)
    with waiting("writing rows") as wait, suppress_library_output(options.debug):
        facts = row_cache.cache_rows(plan, say, wait.say)
    size = sum(path.stat().st_size for path in target.iterdir())
    table = Table("rows, in the cache", "number")
    table.add_row("training, in order", f"{facts.rows_per_shard * config.shards * len(seeds):,}")
    table.add_row("training, distinct", f"{facts.train_rows:,}")
    table.add_row(config.eval_split, f"{facts.eval_rows:,}")
    console.print(table)
    for note in facts.notes:
        say(note)
    say(f"{steps:,} steps of {config.batch_size} rows, {size / 1e6:,.1f} MB")
    say(f"Read it with --gin.Data.rows_dir={options.output_dir}")
    return {
        "rows_dir": options.output_dir,
        "fingerprint": facts.fingerprint(),
        "steps": steps,
        "seeds": list(seeds),
        "train_rows": facts.train_rows,
        "eval_rows": facts.eval_rows,
        "bytes": size,
    }


def _parse_seeds(seeds: str | None, config: DataConfig) -> tuple[int, ...]:
    if seeds is None:
        return (config.seed,)
    found = []
    for seed in seeds.split(","):
        try:
            found.append(dataclasses.replace(config, seed=int(seed)).seed)
        except ValueError:
            raise UserError(f"--seeds={seeds}: {seed!r} is no whole number, as in 1,2,3") from None
    return tuple(dict.fromkeys(found))


def _configured_steps() -> int | None:
    """Returns `Train.steps` of the configuration, None if it has no training."""
    try:
        steps: int = configuration.build("Train").steps
    except UserError:  # Files of data only.
        return None
    return steps
