"""Batches from a seqio task: an endless, resumable stream to train on, a fixed list to evaluate.

This is the module that imports seqio, and with it TensorFlow: import it when data are needed.
"""

import hashlib
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from moe_jax.data.batch import Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.tasks import get_task
from moe_jax.errors import UserError

_FINGERPRINT = "fingerprint.json"


def vocabulary_of(config: DataConfig) -> seqio.SentencePieceVocabulary:
    """Returns the vocabulary that a task's targets are made of."""
    return _task(config).output_features["targets"].vocabulary


def _task(config: DataConfig) -> seqio.Task | seqio.Mixture:
    name = get_task(config.task, config.vocabulary, config.tfds_data_dir)
    return seqio.get_mixture_or_task(name)


def _dataset(config: DataConfig, split: str, training: bool) -> tf.data.Dataset:
    """Returns the rows of a split, converted to a decoder's features."""
    task = _task(config)
    if split not in task.splits:
        raise UserError(
            f"task {config.task!r} has no split {split!r}; it has: {', '.join(sorted(task.splits))}"
        )
    return seqio.get_dataset(
        task.name,
        {"targets": config.sequence_length},
        feature_converter=seqio.LMFeatureConverter(pack=config.pack),
        dataset_split=split,
        shuffle=training,
        seed=config.seed,
        num_epochs=None if training else 1,
    )


def count_tokens(config: DataConfig, batches: int) -> tuple[int, ...]:
    """Counts how often each id of the vocabulary is an input in the first training batches."""
    counts = np.zeros(vocabulary_of(config).vocab_size, np.int64)
    for batch in itertools.islice(TrainBatches(config), batches):
        real = batch.inputs_BS[np.asarray(batch.mask_BS)]
        counts += np.bincount(real.reshape(-1), minlength=len(counts))
    return tuple(counts.tolist())


def _to_batch(features: dict[str, Any]) -> Batch:
    return Batch(
        inputs_BS=features["decoder_input_tokens"],
        targets_BS=features["decoder_target_tokens"],
        weights_BS=features["decoder_loss_weights"].astype(np.float32),
        positions_BS=features.get("decoder_positions"),
        segments_BS=features.get("decoder_segment_ids"),
    )


class TrainBatches(Iterator[Batch]):
    """An endless stream of batches that can be saved and restored exactly where it is.

    Raises:
        UserError: if the data are fewer than one batch.
    """

    def __init__(self, config: DataConfig):
        self._config = config
        rows = _dataset(config, "train", training=True)
        _check_one_batch(config)
        dataset = rows.batch(config.batch_size, drop_remainder=True).prefetch(2)
        self._iterator = iter(dataset)

    def __next__(self) -> Batch:
        return _to_batch({name: value.numpy() for name, value in next(self._iterator).items()})

    def _fingerprint(self) -> dict[str, object]:
        """Returns what must not change for a saved position to have a meaning."""
        config = self._config
        vocabulary = vocabulary_of(config)
        return {
            "task": config.task,
            "sequence_length": config.sequence_length,
            "batch_size": config.batch_size,
            "seed": config.seed,
            "pack": config.pack,
            "vocabulary": hashlib.sha256(vocabulary.sp_model).hexdigest()[:16],
        }

    def save(self, directory: epath.Path) -> None:
        """Writes the position to a new directory."""
        directory.mkdir(parents=True, exist_ok=True)
        tf.train.Checkpoint(iterator=self._iterator).write(str(directory / "position"))
        (directory / _FINGERPRINT).write_text(json.dumps(self._fingerprint(), indent=1))

    def restore(self, directory: epath.Path) -> None:
        """Goes to a saved position.

        Raises:
            UserError: if the position was saved for other data or another batch.
        """
        saved = json.loads((directory / _FINGERPRINT).read_text())
        now = self._fingerprint()
        changed = [f"{k}: {saved.get(k)!r} -> {now[k]!r}" for k in now if saved.get(k) != now[k]]
        if changed:
            raise UserError(
                "the saved position in the data does not fit this configuration "
                f"({'; '.join(changed)}); go back to it, or start in another --output_dir"
            )
        checkpoint = tf.train.Checkpoint(iterator=self._iterator)
        checkpoint.read(str(directory / "position")).assert_consumed()


def _check_one_batch(config: DataConfig) -> None:
    """Refuses a corpus that has not one batch: its stream would be empty or one batch repeated."""
    rows = _dataset(config, "train", training=False)
    found = sum(1 for _ in itertools.islice(rows, config.batch_size))
    if found < config.batch_size:
        raise UserError(
            f"task {config.task!r} has {found} training rows of {config.sequence_length} tokens, "
            f"fewer than one batch of {config.batch_size}; use more text, a smaller "
            "Data.batch_size or a shorter Data.sequence_length"
        )


def eval_batches(config: DataConfig) -> list[Batch]:
    """Returns the batches of the evaluation split in a fixed order, the last one padded.

    Raises:
        UserError: if the split has no rows.
    """
    rows = _dataset(config, config.eval_split, training=False)
    batches = []
    limit = config.eval_batches or None
    for features in itertools.islice(rows.batch(config.batch_size).as_numpy_iterator(), limit):
        missing = config.batch_size - len(features["decoder_target_tokens"])
        padding = ((0, missing), (0, 0))
        batches.append(_to_batch({k: np.pad(v, padding) for k, v in features.items()}))
    if not batches:
        raise UserError(
            f"task {config.task!r} has no text in its split {config.eval_split!r} "
            "(held-out text is every 20th piece of 64 lines of a file: use more or longer files)"
        )
    return batches


def token_bytes(config: DataConfig, size: int) -> np.ndarray:
    """Returns how many UTF-8 bytes of text each token stands for, [size] (0 for control tokens).

    Summed over the tokens of a text in a lossless vocabulary it is the size of the text.
    """
    vocabulary = vocabulary_of(config)
    pieces = vocabulary.tokenizer
    lengths = np.zeros(max(size, vocabulary.vocab_size), np.int32)
    for index in range(pieces.get_piece_size()):
        if pieces.is_byte(index):
            lengths[index] = 1
        elif not (pieces.is_control(index) or pieces.is_unknown(index)):
            lengths[index] = len(pieces.id_to_piece(index).replace("\u2581", " ").encode("utf-8"))
    return lengths[:size]
