"""A directory of cached rows, as `moe-jax data cache --rows` writes it.

| file                      | contents                                                             |
|---------------------------|----------------------------------------------------------------------|
| `rows.json`               | what the rows were made of, the shapes of the arrays (`RowFacts`)    |
| `train_COLUMN.npy`        | the distinct training rows, [R, S], one file per field of a batch    |
| `order_SEED.npy`          | rows in training order, int64 indices, [shards, N]                   |
| `eval_COLUMN.npy`         | the rows of the evaluation split, [E, S]                             |
| `token_bytes.npy`         | bytes of text of each token, int32 [V]                               |
| `vocabulary.model`        | the file of `Data.vocabulary`                                        |
| `pieces.model`            | the same with T5's sentinels, as the rows were tokenised             |

This module imports neither seqio nor TensorFlow.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.iterator_checkpoint import vocabulary_digest
from moe_jax.data.pipeline.row_command import row_command
from moe_jax.data.pipeline.row_facts import ROWS_FILE, RowFacts, parse_facts, row_settings
from moe_jax.data.pipeline.row_files import map_rows
from moe_jax.data.pipeline.row_vocabulary import RowVocabulary
from moe_jax.data.sources.embedded_corpus import embedded_file
from moe_jax.errors import UserError

VOCABULARY_FILE, PIECES_FILE, TOKEN_BYTES_FILE = (
    "vocabulary.model",
    "pieces.model",
    "token_bytes.npy",
)
ORDER_DTYPE = np.dtype(np.int64)
TOKEN_BYTES_DTYPE = np.dtype(np.int32)


def column_file(split: str, column: str) -> str:
    """Returns the name of the file of a column; `split` is `train` or `eval`."""
    return f"{split}_{column}.npy"


def order_file(seed: int) -> str:
    """Returns the name of the file with the order of a seed."""
    return f"order_{seed}.npy"


def vocabulary_bytes(config: DataConfig) -> bytes | None:
    """Returns the contents of the file of `Data.vocabulary`; None if there is no such file."""
    from etils import epath

    if config.vocabulary == "embedded":
        return embedded_file("vocabulary.model").read_bytes()
    path = epath.Path(config.vocabulary)
    return path.read_bytes() if path.exists() else None


@dataclasses.dataclass(frozen=True)
class RowDirectory:
    """An opened directory of cached rows.

    Attributes:
        path: the directory.
        facts: the contents of `rows.json`.
    """

    path: Path
    facts: RowFacts

    def check(self, config: DataConfig) -> None:
        """Checks that the rows are those of a configuration, whatever its seed and batch size.

        Raises:
            UserError: naming the settings that differ, and the command that makes the rows.
        """
        now = row_settings(config)
        different = [
            f"{name} is {saved!r} there, {now[name]!r} here"
            for name, saved in self.facts.settings.items()
            if saved != now[name]
        ]
        if not self._has_vocabulary(config):
            different.append(
                f"Data.vocabulary = {config.vocabulary} has other contents or is not there (that "
                f"of the rows is {self.path / VOCABULARY_FILE})"
            )
        if different:
            raise self._unfit(config, "; ".join(different))

    def _has_vocabulary(self, config: DataConfig) -> bool:
        contents = vocabulary_bytes(config)
        if contents is None:
            return config.vocabulary == self.facts.vocabulary_path
        return hashlib.sha256(contents).hexdigest() == self.facts.vocabulary_digest

    def steps(self, config: DataConfig) -> int:
        """Returns the number of batches of a configuration that the rows suffice for."""
        return self.facts.rows_per_shard // (config.batch_size // config.shards)

    def check_steps(self, config: DataConfig, steps: int) -> None:
        """Checks that there are rows for a number of training steps.

        Raises:
            UserError: if there are fewer.
        """
        if (found := self.steps(config)) < steps:
            raise self._unfit(
                config,
                f"it has rows for {found:,} steps of {config.batch_size}, not for {steps:,}",
                steps,
            )

    def order(self, config: DataConfig) -> np.ndarray:
        """Returns the training order of the configuration's seed, [shards, N].

        Raises:
            UserError: if the seed is not cached, or the file is damaged.
        """
        if config.seed not in self.facts.seeds:
            seeds = ", ".join(map(str, self.facts.seeds))
            what = f"it has the orders of Data.seed = {seeds}, not of {config.seed}"
            raise self._unfit(config, what, self.steps(config))
        shape = (config.shards, self.facts.rows_per_shard)
        return map_rows(self.path / order_file(config.seed), shape, ORDER_DTYPE)

    def columns(self, split: str) -> dict[str, np.ndarray]:
        """Returns the rows of `train` or `eval`, [R, S] for each column.

        Raises:
            UserError: if a file is damaged.
        """
        facts = self.facts
        rows = facts.train_rows if split == "train" else facts.eval_rows
        shape = (rows, facts.settings["Data.sequence_length"])
        return {
            name: map_rows(self.path / column_file(split, name), shape, np.dtype(dtype))
            for name, dtype in facts.columns.items()
        }

    def batch(self, columns: Mapping[str, np.ndarray], index: Any) -> Batch:
        """Returns the batch of rows with these indices, with the types of the pipeline's.

        Raises:
            UserError: for an index or a token that does not exist.
        """
        try:
            values = {name: np.array(column[index]) for name, column in columns.items()}
        except IndexError:
            raise UserError(
                f"{self.path} is damaged: an order has rows that do not exist"
            ) from None
        for name in ("inputs", "targets"):
            if values[name].size and values[name].max() >= self.facts.vocab_size:
                raise UserError(
                    f"{self.path / column_file('*', name)} is damaged: it has the token "
                    f"{values[name].max()} of a vocabulary of {self.facts.vocab_size}"
                )
        typed: dict[str, Any] = {
            f"{name}_BS": value.astype(np.float32 if name == "weights" else np.int32)
            for name, value in values.items()
        }
        return Batch(**typed)

    def token_bytes(self, size: int) -> np.ndarray:
        """Returns the number of bytes of text of each token, [size]."""
        shape = (self.facts.vocab_size,)
        lengths = map_rows(self.path / TOKEN_BYTES_FILE, shape, TOKEN_BYTES_DTYPE)
        return np.pad(lengths, (0, max(size - len(lengths), 0)))[:size]

    def vocabulary(self) -> RowVocabulary:
        """Returns the vocabulary that the rows were tokenised with.

        Raises:
            UserError: if its file is damaged.
        """
        path = self.path / PIECES_FILE
        try:
            pieces = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        if vocabulary_digest(pieces) != self.facts.pieces_digest:
            raise UserError(f"{path} is damaged: it is not what {ROWS_FILE} says")
        return RowVocabulary(pieces, str(path))

    def _unfit(self, config: DataConfig, why: str, steps: int | None = None) -> UserError:
        command = row_command(config, steps or self.steps(config))
        return UserError(
            f"Data.rows_dir = {self.path} does not fit: {why}. Set Data.rows_dir = None, or make "
            f"the rows: {command}"
        )


def read_row_directory(path: str) -> RowDirectory:
    """Reads the facts about a directory of cached rows.

    Raises:
        UserError: if there is no such directory, or it is damaged or of another version.
    """
    if "://" in path:
        raise UserError(
            f"Data.rows_dir = {path}: rows are mapped into memory from a local directory; copy it"
        )
    directory = Path(path).expanduser()
    file = directory / ROWS_FILE
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = "has no rows" if directory.is_dir() else "is not there"
        raise UserError(
            f"Data.rows_dir = {path} {what}; `moe-jax data cache --rows --output_dir={path}` with "
            "the flags of the run makes it, and None reads the data with seqio"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    try:
        facts = parse_facts(json.loads(text))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} is damaged or of another version: {reason}") from None
    return RowDirectory(directory, facts)


def find_rows(config: DataConfig) -> RowDirectory | None:
    """Returns the directory of `Data.rows_dir`; None without one, or if it is gone."""
    if config.rows_dir is None or not (Path(config.rows_dir).expanduser() / ROWS_FILE).exists():
        return None
    return read_row_directory(config.rows_dir)
