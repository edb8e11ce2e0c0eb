"""`moe-jax data score`: curriculum order of the training rows, by the routing of a checkpoint."""

import dataclasses
from typing import Any

from moe_jax.commands.console import line_printer, make_main_console
from moe_jax.config_source import ConfigSource
from moe_jax.library_output import suppress_library_output
from moe_jax.runs import scoring
from moe_jax.runs.device_mesh import make_checked_partition
from moe_jax.runs.loading import load_model, load_run
from moe_jax.training.run_directory import run_directory
from moe_jax.waiting import waiting


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
    """Flags of the action.

    Attributes:
        checkpoint: a run directory.
        step: the step of the checkpoint; None for the latest.
        output_dir: the directory for the scores and the order.
        command: the command line of this process.
        debug: show the output of libraries.
    """

    checkpoint: str
    step: int | None
    output_dir: str
    command: tuple[str, ...] = ()
    debug: bool = False


def score(options: ScoreOptions, source: ConfigSource) -> dict[str, Any]:
    """Scores every training row of a run's task, and writes and prints their order.

    Raises:
        UserError: for everything that the user can correct.
    """
    loaded = load_run(options.checkpoint, source)
    console = make_main_console()
    say, silent, debug = line_printer(console), console.quiet, options.debug
    data = scoring.scored_data(loaded)
    partition = make_checked_partition(loaded.experiment, loaded.config)
    with waiting("loading the checkpoint", silent=silent), suppress_library_output(debug):
        trained = load_model(loaded, options.step, partition)
    with waiting("reading the data", silent=silent), suppress_library_output(debug):
        rows = scoring.read_training_rows(data)
    directory = run_directory.prepare(options.output_dir)
    with waiting("scoring", silent=silent):
        scores = scoring.score(trained, rows, directory, options.command, say)
    shares = zip(loaded.experiment.model.moe_layers, scores.share_by_layer, strict=True)
    by_layer = ", ".join(f"layer {number} {value:.1%}" for number, value in shares)
    say(
        f"{len(scores.order):,} rows by {data.curriculum}; share of tokens with two or more "
        f"experts: {by_layer}; in the first tenth {scores.share_first_tenth:.1%}, "
        f"in the last {scores.share_last_tenth:.1%}"
    )
    say(f"Train in this order: --gin.TASK='curriculum:{options.output_dir}'")
    return {
        "output_dir": str(directory),
        "rows": len(scores.order),
        "order": data.curriculum,
        "share_by_layer": scores.share_by_layer,
        "share_first_tenth": scores.share_first_tenth,
        "share_last_tenth": scores.share_last_tenth,
    }
