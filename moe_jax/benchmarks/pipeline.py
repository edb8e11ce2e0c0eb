"""Throughput of the data pipeline, by stage."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import seqio
import tensorflow as tf

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.input_pipeline import TrainBatches
from moe_jax.data.tasks.registry import find_task

# Examples read before the clock starts: buffers are filled and the first calls traced.
_WARM_UP = 8


@dataclasses.dataclass(frozen=True)
class Stage:
    """The throughput of a stage of the pipeline together with all stages before it.

    Attributes:
        name: what the stage does.
        tokens_per_second: throughput, without padding tokens.
    """

    name: str
    tokens_per_second: float


def measure(config: DataConfig, seconds: float) -> list[Stage]:
    """Measures the pipeline up to each stage, for about `seconds` each.

    Text is counted in tokens by the mean number of bytes in a token.

    Raises:
        UserError: if there is no such task.
    """
    task = find_task(config)
    parts = [p for p in seqio.get_subtasks(task.provider) if "train" in p.splits]
    tokens, text = _first_examples(parts)
    ratio = text / tokens
    stages = {
        "read": (_documents(parts), lambda example: sum(map(_size, _leaves(example))) / ratio),
        "tokenise": (_tokenised(parts), _count_features),
        "rows, shuffled, in batches": (TrainBatches(config), _count_batch),
    }
    return [Stage(name, _rate(*stage, seconds)) for name, stage in stages.items()]


def _documents(parts: list[seqio.Task]) -> Iterator[dict]:
    datasets = [part.source.get_dataset("train", shuffle=False).repeat() for part in parts]
    return _alternating(datasets)


def _tokenised(parts: list[seqio.Task]) -> Iterator[dict]:
    datasets = [
        part.preprocess_precache(part.source.get_dataset("train", shuffle=False), seed=0).repeat()
        for part in parts
    ]
    return _alternating(datasets)


def _alternating(datasets: list[tf.data.Dataset]) -> Iterator[dict]:
    iterators = [dataset.prefetch(2).as_numpy_iterator() for dataset in datasets]
    return itertools.chain.from_iterable(zip(*iterators, strict=True))


def _first_examples(parts: list[seqio.Task]) -> tuple[int, int]:
    """Returns tokens and bytes of some hundred examples."""
    tokens = text = 0
    for example in itertools.islice(_tokenised(parts), 200):
        tokens += _count_features(example)
        text += sum(len(v) for name, v in example.items() if name.endswith("_pretokenized"))
    return tokens, text


def _count_features(example: dict) -> int:
    return sum(len(example[name]) for name in ("inputs", "targets") if name in example)


def _count_batch(batch: object) -> int:
    return int(np.count_nonzero(batch.targets_BS))  # type: ignore[attr-defined]


def _leaves(example: object) -> Iterator[object]:
    if isinstance(example, dict):
        for value in example.values():
            yield from _leaves(value)
    else:
        yield example


def _size(value: object) -> int:
    return len(value) if isinstance(value, bytes) else 0


def _rate(examples: Iterator, count: Callable[[dict], float], seconds: float) -> float:
    for _ in range(_WARM_UP):
        next(examples)
    start, total = time.perf_counter(), 0.0
    while (elapsed := time.perf_counter() - start) < seconds:
        total += count(next(examples))
    return total / elapsed
