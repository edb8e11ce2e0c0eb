"""Statistics of a split: examples, tokens and sequences."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.model_features import get_dataset
from moe_jax.data.tasks.registry import STREAM, find_task, single_tasks
from moe_jax.errors import UserError

_REPLACEMENT = "\ufffd".encode()


@dataclasses.dataclass
class FeatureStatistics:
    """Lengths of one feature over the examples that were read.

    Attributes:
        tokens: number of tokens of each example, the end-of-sequence token included.
        bytes: bytes of text of all examples.
        unknown: number of unknown tokens.
        replaced: number of examples with bytes that are not UTF-8.
        cut: number of examples that are longer than a sequence; None if they are split over
            several.
    """

    tokens: list[int] = dataclasses.field(default_factory=list)
    bytes: int = 0
    unknown: int = 0
    replaced: int = 0
    cut: int | None = None

    def as_dict(self) -> dict[str, float]:
        """Returns the figures by name."""
        tokens = np.array(self.tokens or [0])
        figures = {
            "tokens": int(tokens.sum()),
            "bytes": self.bytes,
            "bytes_per_token": self.bytes / max(int(tokens.sum()), 1),
            "unknown_tokens": self.unknown,
            "examples_not_utf8": self.replaced,
        }
        for name, quantile in (("median", 0.5), ("p95", 0.95), ("longest", 1.0)):
            figures[f"{name}_tokens"] = float(np.quantile(tokens, quantile))
        if self.cut is not None:
            figures["examples_cut"] = self.cut
        return figures


@dataclasses.dataclass
class SplitStatistics:
    """Statistics of a split.

    Attributes:
        examples: number of examples (or documents) that were read.
        features: statistics by feature: `targets`, and `inputs` if the task has them.
        rows: number of sequences that were counted.
        fill: share of tokens in these sequences that are no padding.
        loss_share: share of these tokens that are in the loss.
    """

    examples: int
    features: dict[str, FeatureStatistics]
    rows: int
    fill: float
    loss_share: float


def compute_statistics(config: DataConfig, split: str, limit: int) -> SplitStatistics:
    """Reads a split, up to `limit` examples and as many sequences; 0 for all.

    Raises:
        UserError: if the task has no such split, or it is empty.
    """
    task = find_task(config)
    provider = task.provider
    if split not in provider.splits:
        known = ", ".join(sorted(provider.splits))
        raise UserError(f"task {config.task_name!r} has no split {split!r}; it has: {known}")
    features: dict[str, FeatureStatistics] = {}
    examples = 0
    # The examples of a plain text are its documents, for every objective.
    plain = dataclasses.replace(config, objective="lm")
    for name in single_tasks(config):
        counted = find_task(dataclasses.replace(plain, task=name))
        max_tokens = None if counted.kind == STREAM else task.feature_lengths(config)
        for part in seqio.get_subtasks(counted.provider):
            if split not in part.splits:
                continue
            dataset = part.get_dataset(None, split, shuffle=False, seed=config.seed)
            for example in itertools.islice(dataset.as_numpy_iterator(), limit or None):
                examples += 1
                _count(features, example, part.output_features, max_tokens)
    if not examples:
        raise UserError(f"there are no examples in the split {split!r} of {config.task_name!r}")
    return SplitStatistics(examples, features, *_rows(config, split, limit))


def _count(
    features: dict[str, FeatureStatistics],
    example: dict,
    specs: Mapping[str, seqio.Feature],
    max_tokens: Mapping[str, int] | None,
) -> None:
    """Adds an example to the statistics; `max_tokens` are the maximum lengths of the features."""
    room = dict(max_tokens or {})
    if "inputs" in room:
        room["inputs"] -= min(len(example["targets"]), room["targets"])
    for name, spec in specs.items():
        feature, tokens = features.setdefault(name, FeatureStatistics()), example[name]
        feature.tokens.append(len(tokens))
        feature.unknown += int((tokens == spec.vocabulary.unk_id).sum())
        text = example.get(f"{name}_pretokenized", b"")
        feature.bytes += len(text)
        feature.replaced += _REPLACEMENT in text
        if max_tokens is not None:
            feature.cut = (feature.cut or 0) + (len(tokens) > room[name])


def _rows(config: DataConfig, split: str, limit: int) -> tuple[int, float, float]:
    """Returns the number of sequences, their share of text, and its share in the loss."""
    dataset = get_dataset(config, split, training=False)
    counts = dataset.map(
        lambda row: (
            tf.math.count_nonzero(row["decoder_target_tokens"]),
            tf.math.count_nonzero(row["decoder_loss_weights"]),
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    rows = list(itertools.islice(counts.as_numpy_iterator(), limit or None))
    if not rows:
        return 0, 0.0, 0.0
    real, weighted = np.sum(rows, axis=0)
    fill = real / (len(rows) * config.sequence_length)
    return len(rows), float(fill), float(weighted / max(real, 1))
