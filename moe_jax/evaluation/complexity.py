"""Complexity vectors of adaptive gating: the share of each example's tokens with several experts.

Scoring all training examples is a separate job: it runs on the whole mesh and writes its results in
parts, so that a stopped job resumes with the first missing part.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.curriculum import (
    CurriculumBatches,
    FeatureArrays,
    curriculum_order,
    make_batch,
)
from moe_jax.data.sources.curriculum_source import ABOUT, ORDER, describe_scored_data
from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.sharding.processes import barrier, is_main
from moe_jax.training.run_directory.atomic_file import write_atomically
from moe_jax.training.step import forward

# Approximate number of rows per file of vectors.
ROWS_PER_PART = 8192


class ComplexityScorer:
    """Computes complexity vectors with the router that a model is trained with, without noise.

    Raises:
        UserError: if the model has no experts.
    """

    def __init__(self, model: LanguageModel):
        if model.router is None:
            raise UserError("a dense model routes nothing: a curriculum needs Model.num_experts")
        self._model = model
        self._compiled = jax.jit(self._score, out_shardings=model.partition.replicated)

    def __call__(self, variables: Variables, batch: Batch) -> np.ndarray:
        """Returns for each row the share of its real tokens with two or more experts, [B, L].

        L is the number of MoE layers. Source: Li et al. 2023, equation 5.
        """
        batch = self._model.partition.place_rows(batch)
        return np.asarray(self._compiled(variables, batch))

    def _score(self, variables: Variables, batch: Batch) -> jax.Array:
        output = forward(self._model, variables, batch, RoutingContext(counts_experts=True))
        experts_LBS = output.routing.experts_BS
        assert experts_LBS is not None
        several_LBS = (experts_LBS >= 2) & batch.mask_BS
        tokens_B = jnp.maximum(batch.mask_BS.sum(1, dtype=jnp.float32), 1.0)
        return (several_LBS.sum(2, dtype=jnp.float32) / tokens_B).T


def score_rows(
    scorer: ComplexityScorer,
    variables: Variables,
    rows: FeatureArrays,
    batch_size: int,
    directory: epath.Path,
    about: dict[str, Any],
) -> np.ndarray:
    """Returns the complexity vectors of all rows, [R, L]; computes those not yet written.

    Args:
        scorer: scorer of the model.
        variables: variables of the model.
        rows: the rows, in memory.
        batch_size: number of rows to score at a time.
        directory: directory of the parts, shared by all processes.
        about: everything that the vectors depend on; parts written for other values are deleted.
    """
    count = len(rows["decoder_target_tokens"])
    about = {**about, "rows": count, "parameters": _fingerprint(variables)}
    _prepare(directory, about)
    size = batch_size * max(ROWS_PER_PART // batch_size, 1)
    vectors = []
    for first in range(0, count, size):
        path = directory / f"part_{first // size:05d}.npy"
        # All processes must take the same branch, whichever sees the file first.
        if not _broadcast(path.exists()):
            part = [
                scorer(variables, make_batch(rows, _padded_range(start, batch_size, count)))
                for start in range(first, min(first + size, count), batch_size)
            ]
            _write(path, np.concatenate(part)[: min(size, count - first)])
            barrier(f"part {first} of {directory.name}")
        vectors.append(np.load(path.open("rb"), allow_pickle=False))
    return np.concatenate(vectors)


def make_order(
    scorer: ComplexityScorer,
    variables: Variables,
    rows: FeatureArrays,
    config: DataConfig,
    directory: epath.Path,
    about: dict[str, Any],
) -> np.ndarray:
    """Scores all rows and returns their indices from easy to hard; writes them to `order.npy`.

    The arguments are those of `score_rows`, except for `config`, which says how to order.
    """
    about = {**about, **describe_scored_data(config)}
    vectors = score_rows(scorer, variables, rows, config.batch_size, directory, about)
    assert config.curriculum is not None
    order = curriculum_order(vectors, config.curriculum)
    _write(directory / ORDER, order)
    barrier(f"order of {directory.name}")
    return order


class EpochOrderer:
    """Orders each epoch of a curriculum by the complexity under the model at its start.

    Args:
        scorer: scorer of the model.
        batches: the batches of the curriculum.
        config: settings of the data.
        directory: directory of scores and orders, with a subdirectory for each epoch.
    """

    def __init__(
        self,
        scorer: ComplexityScorer,
        batches: CurriculumBatches,
        config: DataConfig,
        directory: epath.Path,
    ):
        self._scorer, self._batches = scorer, batches
        self._config, self._directory = config, directory

    @property
    def needs_order(self) -> bool:
        """True if the next batch is the first of its epoch or since the start."""
        return self._batches.needs_order

    def start_epoch(self, variables: Variables) -> str:
        """Computes the order of the epoch, or reads it if the epoch has already begun.

        Returns:
            a message for the user.

        Raises:
            UserError: if the order of an epoch that has already begun is missing.
        """
        epoch, batch = self._batches.place
        directory = self._directory / f"epoch_{epoch:04d}"
        if batch:
            order = read_order(directory)
            if order is None:
                raise UserError(
                    f"{directory} has no {ORDER}: the order of an epoch that has begun is lost, "
                    "and the model it was made with is gone; start in another --output_dir"
                )
            self._batches.use(order)
            return f"epoch {epoch} goes on in its order"
        rows = self._batches.rows
        about = {"epoch": epoch}
        order = make_order(self._scorer, variables, rows, self._config, directory, about)
        self._batches.use(order)
        return f"epoch {epoch}: {len(order):,} rows ordered by {self._config.curriculum}"


def read_order(directory: epath.Path) -> np.ndarray | None:
    """Returns the order in a directory of scores; None if it is incomplete."""
    path = directory / ORDER
    return np.load(path.open("rb"), allow_pickle=False) if path.exists() else None


def read_vectors(directory: epath.Path) -> np.ndarray:
    """Returns the complexity vectors in a directory of scores, [R, L]."""
    paths = sorted(directory.glob("part_*.npy"))
    return np.concatenate([np.load(path.open("rb"), allow_pickle=False) for path in paths])


def _padded_range(first: int, size: int, count: int) -> np.ndarray:
    """Returns `size` row indices from `first` on, repeating the last row as padding."""
    return np.minimum(np.arange(first, first + size), count - 1)


def _fingerprint(variables: Variables) -> float:
    """Returns a number that depends on all parameters."""

    @jax.jit
    def total(variables: Variables) -> jax.Array:
        sums = [jnp.sum(jnp.abs(leaf), dtype=jnp.float32) for leaf in jax.tree.leaves(variables)]
        return jnp.sum(jnp.stack(sums))

    # Only as many digits as do not depend on the order of summation.
    return float(f"{float(total(variables)):.5g}")


def _prepare(directory: epath.Path, about: dict[str, Any]) -> None:
    """Creates the directory; deletes results that were written for other values of `about`."""
    if is_main():
        path = directory / ABOUT
        # In the form in which it is read back: tuples become lists in JSON.
        about = json.loads(json.dumps(about))
        if path.exists() and json.loads(path.read_text()) != about:
            # Only files of this module: the directory may contain others.
            for old in (*directory.glob("part_*.npy"), directory / ORDER):
                old.unlink(missing_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(about, indent=1))
    barrier(f"start of {directory.name}")


def _broadcast(value: bool) -> bool:
    """Returns the value of the main process on every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _write(path: epath.Path, array: np.ndarray) -> None:
    """Writes an array atomically, on the main process."""
    if not is_main():
        return
    temporary = path.parent / f".{path.name}"
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
