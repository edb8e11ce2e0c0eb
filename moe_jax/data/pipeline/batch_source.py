"""Where batches come from: the seqio pipeline, or cached rows (`Data.rows_dir`).

Importing this module imports neither seqio nor TensorFlow; `TaskSource` imports both.
"""

import itertools
from collections.abc import Collection, Iterator
from typing import Any, Protocol

import numpy as np
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.row_batches import RowBatches, row_eval_batches
from moe_jax.data.pipeline.row_directory import find_rows, read_row_directory


class CheckpointableIterator(Protocol):
    """An iterator over batches whose state can be saved and restored."""

    def __next__(self) -> Batch:
        """Returns the next batch."""

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""

    def save(self, directory: epath.Path) -> None:
        """Writes the iterator state."""

    def restore(self, directory: epath.Path) -> None:
        """Restores a saved iterator state."""


class BatchSource(Protocol):
    """A source of the batches of one configuration; the same batches from every source."""

    def vocabulary(self) -> Any:
        """Returns the vocabulary, with the methods of `seqio.SentencePieceVocabulary`."""

    def train_batches(
        self, rows: tuple[int, int] | None = None, writes: Collection[int] | None = None
    ) -> CheckpointableIterator:
        """Returns the training batches, see `TrainBatches` and `RowBatches`."""

    def eval_batches(self) -> list[Batch]:
        """Returns the batches of the evaluation split, the last one padded."""

    def token_bytes(self, size: int) -> np.ndarray:
        """Returns the number of bytes of text of each token, [size]."""

    def count_tokens(self, batches: int) -> tuple[int, ...]:
        """Counts the occurrences of each token in the inputs of the first training batches."""

    def check_steps(self, steps: int) -> None:
        """Checks that there is data for a number of training steps."""


def open_source(config: DataConfig) -> BatchSource:
    """Returns the source of a configuration's batches.

    Raises:
        UserError: if there is no such task, or the cached rows do not fit the configuration.
    """
    return TaskSource(config) if config.rows_dir is None else RowSource(config)


class TaskSource:
    """The seqio pipeline as a source."""

    def __init__(self, config: DataConfig):
        self._config = config

    def vocabulary(self) -> Any:
        """Returns the vocabulary of the task's targets."""
        from moe_jax.data.pipeline import input_pipeline

        return input_pipeline.vocabulary_of(self._config)

    def train_batches(
        self, rows: tuple[int, int] | None = None, writes: Collection[int] | None = None
    ) -> CheckpointableIterator:
        """Returns the training batches; the first are prepared in advance."""
        from moe_jax.data.pipeline import input_pipeline

        return input_pipeline.TrainBatches(self._config, rows, writes, ahead=True)

    def eval_batches(self) -> list[Batch]:
        """Returns the batches of the evaluation split."""
        from moe_jax.data.pipeline import input_pipeline

        return input_pipeline.eval_batches(self._config)

    def token_bytes(self, size: int) -> np.ndarray:
        """Returns the number of bytes of text of each token, [size]."""
        from moe_jax.data.pipeline import input_pipeline

        return input_pipeline.token_bytes(self._config, size)

    def count_tokens(self, batches: int) -> tuple[int, ...]:
        """Counts the tokens in the inputs of the first training batches."""
        from moe_jax.data.pipeline import input_pipeline

        return input_pipeline.count_tokens(self._config, batches)

    def check_steps(self, steps: int) -> None:
        """Does nothing: the pipeline has no end."""


class RowSource:
    """Cached rows as a source.

    Raises:
        UserError: if they do not fit the configuration, or the directory is damaged.
    """

    def __init__(self, config: DataConfig):
        assert config.rows_dir is not None
        self._config = config
        self._directory = read_row_directory(config.rows_dir)
        self._directory.check(config)

    def vocabulary(self) -> Any:
        """Returns the vocabulary that the rows were tokenised with."""
        return self._directory.vocabulary()

    def train_batches(
        self, rows: tuple[int, int] | None = None, writes: Collection[int] | None = None
    ) -> RowBatches:
        """Returns the training batches."""
        return RowBatches(self._config, self._directory, rows, writes)

    def eval_batches(self) -> list[Batch]:
        """Returns the batches of the evaluation split."""
        return row_eval_batches(self._config, self._directory)

    def token_bytes(self, size: int) -> np.ndarray:
        """Returns the number of bytes of text of each token, [size]."""
        return self._directory.token_bytes(size)

    def count_tokens(self, batches: int) -> tuple[int, ...]:
        """Counts the tokens in the inputs of the first training batches."""
        counts = np.zeros(self._directory.facts.vocab_size, np.int64)
        for batch in itertools.islice(self.train_batches(), batches):
            real = batch.inputs_BS[np.asarray(batch.mask_BS)]
            counts += np.bincount(real.reshape(-1), minlength=len(counts))
        return tuple(counts.tolist())

    def check_steps(self, steps: int) -> None:
        """Checks that there are rows for a number of training steps.

        Raises:
            UserError: if there are fewer.
        """
        self._directory.check_steps(self._config, steps)


def vocabulary_for(config: DataConfig) -> Any:
    """Returns the vocabulary to encode and decode texts with.

    It is that of the cached rows if they are there, and `Data.vocabulary` otherwise.

    Raises:
        UserError: if it cannot be read.
    """
    if (rows := find_rows(config)) is not None:
        return rows.vocabulary()
    from moe_jax.data.tasks.vocabulary import load_vocabulary

    return load_vocabulary(config.vocabulary)
