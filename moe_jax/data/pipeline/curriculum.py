"""A curriculum by complexity: rows whose tokens need fewer experts come first.

A router's share of tokens with two or more experts in each MoE layer is a row's complexity vector
C = [r_1, ..., r_L] (Li et al. 2023, equation 5). Each epoch takes every row once, in the order of
the vectors that the model gave them before it:

| order        | rows are sorted by                                                             |
|--------------|--------------------------------------------------------------------------------|
| `similarity` | cosine similarity to the easiest row, the most similar first (the paper's)     |
| `mean`       | mean(C): unlike the cosine it tells a uniformly hard row from an easy one      |
| `distance`   | Euclidean distance to the easiest row                                          |

The easiest row is the one with the smallest sum of C. An easiest row of zeros has no cosine: rows
of zeros are then the most similar to it, all others the least. Ties keep the easier row, then the
earlier row, first.
"""

import dataclasses
import json
from collections.abc import Iterator

import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.iterator_checkpoint import can_restore, data_fingerprint
from moe_jax.data.pipeline.model_features import get_dataset, to_batch
from moe_jax.errors import UserError
from moe_jax.sharding.processes import is_main

_POSITION = "curriculum.json"

# The features of all rows, [rows, S] each, under seqio's names.
FeatureArrays = dict[str, np.ndarray]


def curriculum_order(vectors_RL: np.ndarray, how: str) -> np.ndarray:
    """Returns the rows from easy to hard, [R] int64.

    Args:
        vectors_RL: complexity vectors, shares in [0, 1].
        how: one of `moe_jax.data.config.CurriculumName`.
    """
    vectors = np.asarray(vectors_RL, np.float64)
    total_R = vectors.sum(1)
    easiest = vectors[np.argmin(total_R)]
    if how == "mean":
        key_R = total_R
    elif how == "distance":
        key_R = np.linalg.norm(vectors - easiest, axis=1)
    else:
        key_R = -_cosine(vectors, easiest)
    # Rounded, so that rows which differ by the order of additions only are ties.
    return np.lexsort((np.arange(len(vectors)), total_R.round(9), key_R.round(9)))


def _cosine(vectors_RL: np.ndarray, reference_L: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of each row to the reference; 1 between two zeros, else 0."""
    sizes_R, size = np.linalg.norm(vectors_RL, axis=1), np.linalg.norm(reference_L)
    if size == 0:
        return (sizes_R == 0).astype(np.float64)
    product_R = vectors_RL @ reference_L
    return np.divide(product_R, sizes_R * size, out=np.zeros_like(sizes_R), where=sizes_R > 0)


def read_train_rows(config: DataConfig) -> FeatureArrays:
    """Reads every training row once, in stored order, into memory.

    Raises:
        UserError: if they are fewer than one batch.
    """
    dataset = get_dataset(config, "train", training=False).batch(1024)
    parts = list(dataset.as_numpy_iterator())
    rows: FeatureArrays = (
        {name: np.concatenate([p[name] for p in parts]) for name in parts[0]} if parts else {}
    )
    found = len(rows["decoder_target_tokens"]) if rows else 0
    if found < config.batch_size:
        raise UserError(
            f"task {config.task_name!r} has {found} training rows, fewer than one batch of "
            f"{config.batch_size}; use more text, or a smaller Data.batch_size"
        )
    return rows


def make_batch(rows: FeatureArrays, index: np.ndarray) -> Batch:
    """Returns a batch of these rows."""
    return to_batch({name: value[index] for name, value in rows.items()})


class CurriculumBatches(Iterator[Batch]):
    """Epoch after epoch of the same rows, each in an order of its own, without an end.

    A batch is a function of the step and the orders, so a position is a number of steps. The
    rows that do not fill an epoch's last batch are left out of it.

    Args:
        config: the data.
        part: first row of each batch that is needed, and one past the last; None for all.
        rows: the rows; None reads them.

    Attributes:
        rows: all of them.
    """

    def __init__(
        self,
        config: DataConfig,
        part: tuple[int, int] | None = None,
        rows: FeatureArrays | None = None,
    ):
        self.rows = read_train_rows(config) if rows is None else rows
        self._config = config
        self._part = slice(*(part or (0, config.batch_size)))
        self._step = 0
        self._order: np.ndarray | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches of an epoch."""
        return len(self.rows["decoder_target_tokens"]) // self._config.batch_size

    @property
    def place(self) -> tuple[int, int]:
        """Epoch of the next batch, and its number in it."""
        return divmod(self._step, self.steps_per_epoch)

    @property
    def needs_order(self) -> bool:
        """Whether `use` has to be called before the next batch."""
        return self._order is None

    def use(self, order: np.ndarray) -> None:
        """Takes the order of the epoch that the next batch is in: the rows, [R] int64."""
        self._order = order

    def __next__(self) -> Batch:
        if self._order is None:
            raise ValueError("the epoch has no order yet: call `use`")
        _, batch = self.place
        first = batch * self._config.batch_size
        index = self._order[first : first + self._config.batch_size]
        self._step += 1
        if self._step % self.steps_per_epoch == 0:
            self._order = None
        return make_batch(self.rows, index[self._part])

    def save(self, directory: epath.Path) -> None:
        """Writes the position, the same for all processes."""
        if is_main():
            directory.mkdir(parents=True, exist_ok=True)
            position = {"step": self._step, **self._fingerprint()}
            (directory / _POSITION).write_text(json.dumps(position, indent=1))

    def restore(self, directory: epath.Path) -> None:
        """Goes to a saved position.

        Raises:
            UserError: if it was saved for other rows or another order.
        """
        path = directory / _POSITION
        if not path.exists():
            raise UserError(
                "the checkpoint's position is not one in a curriculum: Data.curriculum was "
                "changed; go back to it, or start in another --output_dir"
            )
        saved = json.loads(path.read_text())
        if can_restore("curriculum", saved, self._fingerprint(), self._config.allow_changed_files):
            self._step, self._order = saved["step"], None

    def _fingerprint(self) -> dict[str, object]:
        config = dataclasses.asdict(self._config)
        rows_by = ("sequence_length", "objective", "pack", "targets_length")
        names = (*rows_by, "batch_size", "curriculum", "seed")
        rows = len(self.rows["decoder_target_tokens"])
        return {**data_fingerprint(self._config), "rows": rows, **{n: config[n] for n in names}}
