"""A curriculum by complexity: sequences whose tokens need fewer experts come first.

The shares of a sequence's tokens with two or more experts in each MoE layer are its complexity
vector C = [r_1, ..., r_L] (Li et al. 2023, equation 5). Each epoch contains every sequence once, in
the order of the vectors that the model gave them before the epoch:

| order        | sequences are sorted by                                                        |
|--------------|--------------------------------------------------------------------------------|
| `similarity` | cosine similarity to the easiest, the most similar first (the paper's)         |
| `mean`       | mean(C), which unlike the cosine depends on the magnitude of C                 |
| `distance`   | Euclidean distance to the easiest                                              |

The easiest sequence has the smallest sum of C. If that is zero there is no cosine: sequences with
zeros are then the most similar to it, all others the least. Of ties the easier, then the earlier
sequence is first.
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

_STATE_FILE = "curriculum.json"

# The model features of all sequences, [R, S] each, under seqio's names.
FeatureArrays = dict[str, np.ndarray]


def curriculum_order(vectors_RL: np.ndarray, criterion: str) -> np.ndarray:
    """Returns the indices of the sequences from easy to hard, [R] int64.

    Args:
        vectors_RL: complexity vectors, shares in [0, 1].
        criterion: one of `moe_jax.data.config.CurriculumName`.
    """
    vectors = np.asarray(vectors_RL, np.float64)
    total_R = vectors.sum(1)
    easiest = vectors[np.argmin(total_R)]
    if criterion == "mean":
        key_R = total_R
    elif criterion == "distance":
        key_R = np.linalg.norm(vectors - easiest, axis=1)
    else:
        key_R = -_cosine(vectors, easiest)
    # Rounded, so that differences by the order of additions are ties.
    return np.lexsort((np.arange(len(vectors)), total_R.round(9), key_R.round(9)))


def _cosine(vectors_RL: np.ndarray, reference_L: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of each vector to the reference; 1 for two zeros, 0 for one."""
    sizes_R, size = np.linalg.norm(vectors_RL, axis=1), np.linalg.norm(reference_L)
    if size == 0:
        return (sizes_R == 0).astype(np.float64)
    product_R = vectors_RL @ reference_L
    return np.divide(product_R, sizes_R * size, out=np.zeros_like(sizes_R), where=sizes_R > 0)


def read_train_rows(config: DataConfig) -> FeatureArrays:
    """Reads every training sequence once, in stored order, into memory.

    Raises:
        UserError: if there are fewer than one batch.
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
    """Returns the batch of the sequences with these indices."""
    return to_batch({name: value[index] for name, value in rows.items()})


class CurriculumBatches(Iterator[Batch]):
    """Endless epochs of the same sequences, each in its own curriculum order.

    A batch is a function of the step and the orders, so the iterator state is a number of steps.
    The sequences that do not fill an epoch's last batch are dropped.

    Args:
        config: configuration of the data.
        part: first row of each batch that this process needs, and one past the last; None for all.
        rows: the sequences; None reads them.

    Attributes:
        rows: all sequences.
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
        """Number of full batches of an epoch."""
        return len(self.rows["decoder_target_tokens"]) // self._config.batch_size

    @property
    def place(self) -> tuple[int, int]:
        """Epoch of the next batch, and its index in the epoch."""
        return divmod(self._step, self.steps_per_epoch)

    @property
    def needs_order(self) -> bool:
        """Whether the next batch needs an order, to be set by `use`."""
        return self._order is None

    def use(self, order: np.ndarray) -> None:
        """Sets the order of the epoch of the next batch: indices of the sequences, [R] int64."""
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
        """Writes the iterator state, which is the same for all processes."""
        if is_main():
            directory.mkdir(parents=True, exist_ok=True)
            position = {"step": self._step, **self._fingerprint()}
            (directory / _STATE_FILE).write_text(json.dumps(position, indent=1))

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state.

        Raises:
            UserError: if it was saved for other sequences or another order.
        """
        path = directory / _STATE_FILE
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
