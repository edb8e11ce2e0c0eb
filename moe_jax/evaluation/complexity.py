"""How many experts the tokens of each row need: the complexity vectors of adaptive gating.

Scoring all training rows is a job of its own: it runs on the whole mesh, and writes its results
in parts, so that one that was stopped goes on with the part that is missing.
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
from moe_jax.models.layer_inputs import LayerInputs
from moe_jax.sharding.processes import barrier, is_main
from moe_jax.training.step import forward
from moe_jax.training.whole_file import write_whole

# Rows whose vectors are written to one file, about.
ROWS_PER_PART = 8192


class ComplexityScorer:
    """Computes complexity vectors with a model's router as it is trained, without its noise.

    Raises:
        UserError: if the model has no experts.
    """

    def __init__(self, model: LanguageModel):
        if model.router is None:
            raise UserError("a dense model routes nothing: a curriculum needs Model.num_experts")
        self._model = model
        replicated = None if model.partition is None else model.partition.replicated
        self._compiled = jax.jit(self._score, out_shardings=replicated)

    def __call__(self, variables: Variables, batch: Batch) -> np.ndarray:
        """Returns the share of each row's real tokens with two or more experts, [B, L].

        L counts the MoE layers. Source: Li et al. 2023, equation 5.
        """
        if self._model.partition is not None:
            batch = self._model.partition.place_rows(batch)
        return np.asarray(self._compiled(variables, batch))

    def _score(self, variables: Variables, batch: Batch) -> jax.Array:
        output = forward(self._model, variables, batch, inputs=LayerInputs(counts=True))
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
    """Returns the complexity vectors of all rows, [R, L], computing those not yet written.

    Args:
        scorer: of the model.
        variables: its arrays.
        rows: the rows, in memory.
        batch_size: rows that are scored at a time.
        directory: where the parts are written; all processes see it.
        about: what the vectors depend on; parts written for anything else are not used.
    """
    count = len(rows["decoder_target_tokens"])
    about = {**about, "rows": count, "parameters": _fingerprint(variables)}
    _begin(directory, about)
    size = batch_size * max(ROWS_PER_PART // batch_size, 1)
    vectors = []
    for first in range(0, count, size):
        path = directory / f"part_{first // size:05d}.npy"
        # All processes score together or not at all, whoever sees the file first.
        if not _agreed(path.exists()):
            part = [
                scorer(variables, make_batch(rows, _filled(start, batch_size, count)))
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
    """Scores all rows and returns them from easy to hard; also written to `order.npy`.

    The arguments are those of `score_rows`; `config` says how to order.
    """
    about = {**about, **describe_scored_data(config)}
    vectors = score_rows(scorer, variables, rows, config.batch_size, directory, about)
    assert config.curriculum is not None
    order = curriculum_order(vectors, config.curriculum)
    _write(directory / ORDER, order)
    barrier(f"order of {directory.name}")
    return order


class EpochOrders:
    """Gives each epoch of a curriculum its order, made by the model that the epoch starts with.

    Args:
        scorer: of the model.
        batches: the curriculum.
        config: the data.
        directory: where scores and orders are kept, a directory for each epoch.
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
        """Whether the next batch is the first since the start or in its epoch."""
        return self._batches.needs_order

    def begin(self, variables: Variables) -> str:
        """Makes the epoch's order, or reads it where the epoch has begun already; says which.

        Raises:
            UserError: if the order of an epoch that has begun is gone.
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
    """Returns the order in a directory of scores, or None if it is not complete."""
    path = directory / ORDER
    return np.load(path.open("rb"), allow_pickle=False) if path.exists() else None


def read_vectors(directory: epath.Path) -> np.ndarray:
    """Returns the complexity vectors in a directory of scores, [R, L]."""
    paths = sorted(directory.glob("part_*.npy"))
    return np.concatenate([np.load(path.open("rb"), allow_pickle=False) for path in paths])


def _filled(first: int, size: int, count: int) -> np.ndarray:
    """Returns `size` rows from the first on, the last one repeated where there are no more."""
    return np.minimum(np.arange(first, first + size), count - 1)


def _fingerprint(variables: Variables) -> float:
    """Returns a number that other parameters would not have."""

    @jax.jit
    def total(variables: Variables) -> jax.Array:
        sums = [jnp.sum(jnp.abs(leaf), dtype=jnp.float32) for leaf in jax.tree.leaves(variables)]
        return jnp.sum(jnp.stack(sums))

    # As many digits as do not depend on the order of additions.
    return float(f"{float(total(variables)):.5g}")


def _begin(directory: epath.Path, about: dict[str, Any]) -> None:
    """Makes the directory; what was written there for anything else is removed."""
    if is_main():
        path = directory / ABOUT
        # As it is read back: tuples are lists in JSON.
        about = json.loads(json.dumps(about))
        if path.exists() and json.loads(path.read_text()) != about:
            # Its own files only, whatever else is there.
            for old in (*directory.glob("part_*.npy"), directory / ORDER):
                old.unlink(missing_ok=True)
        directory.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(about, indent=1))
    barrier(f"start of {directory.name}")


def _agreed(value: bool) -> bool:
    """Returns the main process's answer on every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _write(path: epath.Path, array: np.ndarray) -> None:
    """Writes an array in one step, by the main process."""
    if not is_main():
        return
    own = path.parent / f".{path.name}"
    with own.open("wb") as file:
        np.save(file, array)
    own.replace(path)
