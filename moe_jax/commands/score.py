"""`moe-jax data score`: order the training data by what a checkpoint's router makes of it."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from moe_jax.commands.load import load_experiment, load_variables
from moe_jax.commands.quiet import quiet
from moe_jax.commands.start import make_checked_partition, make_console
from moe_jax.sharding.processes import propagate_errors
from moe_jax.training.run_directory import run_directory
from moe_jax.training.run_directory.directory_lock import DirectoryLock
from moe_jax.waiting import waiting


def score(
    checkpoint: str,
    step: int | None,
    output_dir: str,
    files: list[str],
    bindings: list[str],
    search_paths: list[str],
    command: Sequence[str] = (),
    debug: bool = False,
) -> dict[str, Any]:
    """Scores every training row of a run's task and writes them from easy to hard.

    A job that is stopped goes on where it was when it is started again.

    Raises:
        UserError: for anything the user can mend.
    """
    with propagate_errors():
        directory, described = load_experiment(checkpoint, files, bindings, search_paths)
    console = make_console()
    data = described.data
    data = dataclasses.replace(data, curriculum=data.curriculum or "similarity")
    model = described.language_model(make_checked_partition(described))
    with waiting("loading the checkpoint", silent=console.quiet), quiet(debug):
        step, variables = load_variables(directory, step, model)
    with waiting("reading the data", silent=console.quiet), quiet(debug), propagate_errors():
        from moe_jax.data.pipeline.curriculum import read_train_rows
        from moe_jax.evaluation.complexity import ComplexityScorer, make_order, read_vectors

        rows = read_train_rows(data)
    target = run_directory.prepare(output_dir)
    about = {"checkpoint": str(directory), "step": step}
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    with DirectoryLock(target, command, say), waiting("scoring", silent=console.quiet):
        order = make_order(ComplexityScorer(model), variables, rows, data, target, about)
        vectors = read_vectors(target)
    means = [float(value) for value in vectors.mean(0)]
    first, last = (vectors[part].mean() for part in np.array_split(order, 10)[::9])
    shares = zip(described.model.moe_layers, means, strict=True)
    by_layer = ", ".join(f"layer {number} {value:.1%}" for number, value in shares)
    console.print(
        f"{len(order):,} rows by {data.curriculum}; share of tokens with two or more experts: "
        f"{by_layer}; in the first tenth {first:.1%}, "
        f"in the last {last:.1%}",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"Train in this order: --gin.TASK='curriculum:{output_dir}'",
        highlight=False,
        soft_wrap=True,
    )
    return {
        "output_dir": str(target),
        "rows": len(order),
        "order": data.curriculum,
        "share_by_layer": means,
        "share_first_tenth": float(first),
        "share_last_tenth": float(last),
    }
