"""Writes a directory of cached rows: the batches of the seqio pipeline, row by row.

The pipeline shuffles examples before it splits them into rows, so that the rows of another seed are
mostly other rows. A row that is repeated, in another epoch or under another seed, is stored once.

This module imports seqio and TensorFlow.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from moe_jax.data.batch import PAD, Batch
from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline import input_pipeline
from moe_jax.data.pipeline.example_prompts import has_questions
from moe_jax.data.pipeline.iterator_checkpoint import data_fingerprint, vocabulary_digest
from moe_jax.data.pipeline.model_features import get_dataset
from moe_jax.data.pipeline.row_directory import (
    ORDER_DTYPE,
    PIECES_FILE,
    TOKEN_BYTES_DTYPE,
    TOKEN_BYTES_FILE,
    VOCABULARY_FILE,
    column_file,
    order_file,
    vocabulary_bytes,
)
from moe_jax.data.pipeline.row_facts import COLUMNS, ROWS_FILE, RowFacts, row_settings
from moe_jax.data.pipeline.row_files import RowFileWriter
from moe_jax.data.pipeline.task_cache import move_complete
from moe_jax.data.tasks.registry import find_task
from moe_jax.errors import UserError
from moe_jax.formatting import count

# Columns of zeros and ones.
_FLAGS = ("weights", "prefix")


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """What to write.

    Attributes:
        config: configuration of the data; its seed does not matter.
        steps: number of training steps to write the rows of.
        seeds: seeds of the order of the training data.
        target: directory to write.
        force: replace a directory of cached rows.
    """

    config: DataConfig
    steps: int
    seeds: Sequence[int]
    target: Path
    force: bool = False


def steps_of_an_epoch(config: DataConfig) -> int:
    """Counts the training steps of one epoch: full batches, of the shard with the fewest rows.

    Raises:
        UserError: for a mixture, which has no epochs.
    """
    if len(config.rates) > 1:
        raise UserError("a mixture has no epochs: give the number of steps, --steps=N")
    shards = range(config.shards) if config.shards > 1 else (None,)
    rows = [
        sum(1 for _ in get_dataset(config, "train", training=False, shard=shard))
        for shard in shards
    ]
    return max(min(rows) // (config.batch_size // config.shards), 1)


def cache_rows(
    plan: RowPlan, say: Callable[[str], None], progress: Callable[[str], None]
) -> RowFacts:
    """Writes the rows of a configuration; the directory appears only when it is complete.

    Args:
        plan: what to write.
        say: prints a line.
        progress: shows how far it is.

    Returns:
        the facts about the rows, as in `rows.json`.

    Raises:
        UserError: if the rows cannot be cached, the directory is in use, or the disk is too small.
    """
    config, target = dataclasses.replace(plan.config, rows_dir=None), plan.target
    if config.curriculum is not None:
        raise UserError(
            f"Data.curriculum = {config.curriculum!r} orders the rows by the model that is "
            "trained, so there is no order to cache; set it to None"
        )
    _check_target(target, plan.force)
    models = _vocabulary_files(config)
    held_out = input_pipeline.eval_batches(config)
    columns = _columns(config, held_out[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    lengths = _token_bytes(config)
    small = lengths.nbytes + sum(map(len, models.values()))
    _check_space(plan, small + _row_bytes(plan, columns, len(held_out)), say)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as work:
        new = Path(work) / "rows"
        new.mkdir()
        for name, contents in models.items():
            (new / name).write_bytes(contents)
        np.save(new / TOKEN_BYTES_FILE, lengths, allow_pickle=False)
        train_rows = _write_training(plan, config, new, columns, progress)
        eval_rows = _write_evaluation(config, new, columns, held_out)
        facts = _facts(plan, models, columns, train_rows, eval_rows)
        (new / ROWS_FILE).write_text(facts.dumps(), encoding="utf-8")
        move_complete(new, target, Path(work) / "replaced", plan.force)
    return facts


def _vocabulary_files(config: DataConfig) -> dict[str, bytes]:
    """Returns the contents of the files of the vocabulary, without and with sentinels.

    Raises:
        UserError: if there is no file of the vocabulary.
    """
    contents = vocabulary_bytes(config)
    if contents is None:
        raise UserError(f"there is no vocabulary {config.vocabulary} (Data.vocabulary)")
    return {
        VOCABULARY_FILE: contents,
        PIECES_FILE: input_pipeline.vocabulary_of(config).sp_model,
    }


def _token_bytes(config: DataConfig) -> np.ndarray:
    size = input_pipeline.vocabulary_of(config).vocab_size
    return input_pipeline.token_bytes(config, size).astype(TOKEN_BYTES_DTYPE)


def _facts(
    plan: RowPlan,
    models: Mapping[str, bytes],
    columns: Mapping[str, str],
    train_rows: int,
    eval_rows: int,
) -> RowFacts:
    """Returns the contents of `rows.json`."""
    config = dataclasses.replace(plan.config, rows_dir=None)
    task = find_task(config)
    return RowFacts(
        settings=row_settings(config),
        files=data_fingerprint(config)["files"],
        pieces_digest=vocabulary_digest(models[PIECES_FILE]),
        vocabulary_digest=hashlib.sha256(models[VOCABULARY_FILE]).hexdigest(),
        vocabulary_path=config.vocabulary,
        vocab_size=input_pipeline.vocabulary_of(config).vocab_size,
        columns=columns,
        seeds=tuple(plan.seeds),
        rows_per_shard=plan.steps * (config.batch_size // config.shards),
        train_rows=train_rows,
        eval_rows=eval_rows,
        eval_is_whole=not config.eval_batches
        or eval_rows < config.eval_batches * config.batch_size,
        is_question=has_questions(config),
        notes=task.notes,
        manifest={files.task: files.record() for files in task.files},
    )


def _check_target(target: Path, force: bool) -> None:
    """Refuses to replace anything but cached rows."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / ROWS_FILE).is_file():
        raise UserError(f"{target} exists already and has no cached rows; give another directory")
    if not force:
        raise UserError(f"{target} has cached rows already; --force replaces them")


def _columns(config: DataConfig, batch: Batch) -> dict[str, str]:
    """Returns the types in which the columns of a batch are stored."""
    largest = max(input_pipeline.vocabulary_of(config).vocab_size, config.sequence_length + 1)
    whole = "uint16" if largest <= 1 << 16 else "uint32"
    return {
        name: "uint8" if name in _FLAGS else whole
        for name in COLUMNS
        if getattr(batch, f"{name}_BS") is not None
    }


def _row_bytes(plan: RowPlan, columns: Mapping[str, str], eval_batches: int) -> int:
    """Returns the number of bytes of all rows and orders, if no row is repeated."""
    config = plan.config
    row = config.sequence_length * sum(np.dtype(kind).itemsize for kind in columns.values())
    train = plan.steps * config.batch_size * len(plan.seeds)
    return train * (row + ORDER_DTYPE.itemsize) + eval_batches * config.batch_size * row


def _check_space(plan: RowPlan, need: int, say: Callable[[str], None]) -> None:
    """Prints the space that the rows take at most, and compares it with the free space.

    Raises:
        UserError: if the disk is too small.
    """
    config = plan.config
    train = plan.steps * config.batch_size * len(plan.seeds)
    free = shutil.disk_usage(plan.target.parent).free
    seeds = f"{len(plan.seeds)} seed{'s' * (len(plan.seeds) > 1)}"
    say(
        f"{count(train)} training rows of {config.sequence_length} tokens ({plan.steps:,} steps, "
        f"{seeds}): at most {need / 1e6:,.1f} MB; {free / 1e6:,.0f} MB are free"
    )
    if need > free:
        raise UserError(
            f"the rows need up to {need / 1e6:,.1f} MB, and {plan.target.parent} has "
            f"{free / 1e6:,.1f} MB left: give fewer --steps or --seeds, or another --output_dir"
        )


def _write_training(
    plan: RowPlan,
    config: DataConfig,
    directory: Path,
    columns: Mapping[str, str],
    progress: Callable[[str], None],
) -> int:
    """Writes the distinct training rows and the order of each seed; returns their number."""
    seen: dict[bytes, int] = {}
    size = config.batch_size // config.shards
    with contextlib.ExitStack() as stack:
        writers = _writers(stack, config, directory, "train", columns)
        for seed in plan.seeds:
            order = np.empty((config.shards, plan.steps * size), ORDER_DTYPE)
            batches = input_pipeline.TrainBatches(dataclasses.replace(config, seed=seed))
            for step, batch in enumerate(itertools.islice(batches, plan.steps)):
                index = _write_new(_stored(batch, columns), writers, seen)
                order[:, step * size : (step + 1) * size] = index.reshape(config.shards, size)
                progress(f"seed {seed}, step {step + 1:,} of {plan.steps:,}")
            np.save(directory / order_file(seed), order, allow_pickle=False)
    return len(seen)


def _write_evaluation(
    config: DataConfig, directory: Path, columns: Mapping[str, str], batches: Iterable[Batch]
) -> int:
    """Writes the rows of the evaluation split without their padding; returns their number."""
    with contextlib.ExitStack() as stack:
        writers = _writers(stack, config, directory, "eval", columns)
        for batch in batches:
            # Rows without tokens fill the last batch up.
            is_row = (np.asarray(batch.targets_BS) != PAD).any(axis=1)
            last = int(np.flatnonzero(is_row)[-1]) + 1 if is_row.any() else 0
            for name, values in _stored(batch, columns).items():
                writers[name].write(values[:last])
        return writers["targets"].rows


def _writers(
    stack: contextlib.ExitStack,
    config: DataConfig,
    directory: Path,
    split: str,
    columns: Mapping[str, str],
) -> dict[str, RowFileWriter]:
    make = functools.partial(RowFileWriter, row_shape=(config.sequence_length,))
    return {
        name: stack.enter_context(
            make(directory / column_file(split, name), dtype=np.dtype(columns[name]))
        )
        for name in columns
    }


def _stored(batch: Batch, columns: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Converts the columns of a batch to the types in which they are stored.

    Raises:
        UserError: if a value would change.
    """
    stored = {}
    for name, kind in columns.items():
        values = np.asarray(getattr(batch, f"{name}_BS"))
        stored[name] = values.astype(kind)
        if not np.array_equal(stored[name], values):
            raise UserError(
                f"the {name} of this task cannot be cached: they are not all whole numbers of type "
                f"{kind}, such as {values[stored[name] != values][0]}"
            )
    return stored


def _write_new(
    stored: Mapping[str, np.ndarray],
    writers: Mapping[str, RowFileWriter],
    seen: dict[bytes, int],
) -> np.ndarray:
    """Writes the rows that were not seen before; returns the indices of all, [B]."""
    row_bytes = np.concatenate([values.view(np.uint8) for values in stored.values()], axis=1)
    index, new = np.empty(len(row_bytes), ORDER_DTYPE), []
    for row, contents in enumerate(row_bytes):
        digest = hashlib.blake2b(contents, digest_size=16).digest()
        if digest not in seen:
            seen[digest] = len(seen)
            new.append(row)
        index[row] = seen[digest]
    for name, values in stored.items():
        writers[name].write(values[new])
    return index
