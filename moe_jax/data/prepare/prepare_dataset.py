"""Prepares a data set: reads its files, writes a TFDS directory, and moves it to its final path.

It is written to a hidden folder beside the target, so that an interruption leaves no incomplete
data set under the final path.
"""

import collections
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_jax.data.prepare.dataset_spec import DatasetSpec
from moe_jax.data.prepare.file_layout import SplitFiles
from moe_jax.data.prepare.report import (
    PreparedDataset,
    PreparedSplit,
    differences,
    published_splits,
)
from moe_jax.data.prepare.row_reader import DataFile, KeyedExample
from moe_jax.errors import UserError

HELD_OUT_EVERY = 20
TEMPORARY = ".moe_jax_prepare_"


def prepare_dataset(
    spec: DatasetSpec, source: Path, data_dir: Path, force: bool = False
) -> PreparedDataset:
    """Writes a data set's files from `source` as a TFDS directory in `data_dir`.

    Raises:
        UserError: if the data set exists and `force` is not given, files are missing or malformed,
            or the directory cannot be written.
    """
    target = data_dir / spec.title / spec.version
    if target.exists() and not force:
        raise UserError(f"{target} exists already; --force replaces it")
    try:
        found = spec.find(source)
    except OSError as error:
        raise UserError(f"cannot look into --source={source}: {error}") from None
    splits, rows = _read(spec, found)
    empty = [name for name in splits if name not in rows]
    if not rows:
        raise UserError(f"no file of {spec.name} in {source} has a row")
    try:
        with _temporary(data_dir) as work:
            _write(spec, work, rows, splits)
            _move(work / spec.title / spec.version, target, work, force)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}") from error
    for name in empty:
        del splits[name]
    why = "too few documents to hold any out" if found.held_out else "the file is empty, left out"
    notes = [*found.notes, *(f"{name}: {why}" for name in empty)]
    return PreparedDataset(target, splits, notes + differences(spec, splits, empty))


def _read(
    spec: DatasetSpec, found: SplitFiles
) -> tuple[dict[str, PreparedSplit], dict[str, Iterator[KeyedExample]]]:
    """Returns the splits, and the examples of non-empty ones: TFDS allows no empty split."""
    splits: dict[str, PreparedSplit] = {}
    rows: dict[str, Iterator[KeyedExample]] = {}
    for name, paths in found.splits.items():
        splits[name] = PreparedSplit([DataFile(path) for path in paths])
        splits[name].published = published_splits(spec).get(name)
        pairs = _counted(_pairs(spec, name, splits[name], found.held_out), splits[name])
        first = next(pairs, None)
        if first is not None:
            rows[name] = _chain(first, pairs)
    return splits, rows


def _chain(first: KeyedExample, rest: Iterator[KeyedExample]) -> Iterator[KeyedExample]:
    yield first
    yield from rest


def _pairs(
    spec: DatasetSpec, name: str, split: PreparedSplit, held_out: bool
) -> Iterator[KeyedExample]:
    """Yields the examples of all files of a split, with unique keys."""
    index = 0
    for number, file in enumerate(split.files):
        for key, example in spec.read(file, name):
            wanted = not held_out or name not in ("train", "validation")
            wanted = wanted or (index % HELD_OUT_EVERY == HELD_OUT_EVERY // 2) == (
                name == "validation"
            )
            index += 1
            if wanted:
                yield (key if len(split.files) == 1 else f"{number}/{key}"), example


def _counted(pairs: Iterator[KeyedExample], split: PreparedSplit) -> Iterator[KeyedExample]:
    labels: collections.Counter[Any] = collections.Counter()
    for key, example in pairs:
        split.rows += 1
        if "label" in example:
            labels[example["label"]] += 1
        yield key, example
    split.labels = dict(labels)


def _write(
    spec: DatasetSpec,
    work: Path,
    rows: dict[str, Iterator[KeyedExample]],
    splits: dict[str, PreparedSplit],
) -> None:
    # TensorFlow takes seconds to import: it is imported when there are examples to write.
    from moe_jax.data.prepare import tfds_builder

    builder = tfds_builder.make_builder(spec, work, rows)
    tfds_builder.write_examples(builder)
    names = tfds_builder.label_names(builder)
    for name in rows:
        written = builder.info.splits[name].num_examples
        if written != splits[name].rows:
            raise AssertionError(f"{name}: {splits[name].rows} rows read, {written} written")
        splits[name].labels = _named(splits[name].labels, names)


def _named(labels: dict[Any, int], names: list[str] | None) -> dict[str, int]:
    """Returns label counts in the order of the labels' indices; of scores the number only."""
    if names is None:
        # Scores; hidden ones are -1.
        known = sum(count for label, count in labels.items() if label >= 0)
        return {"scores": known} if known else {"hidden": labels[-1]} if labels else {}
    counts = {name: labels.get(name, 0) + labels.get(i, 0) for i, name in enumerate(names)}
    counts = {name: count for name, count in counts.items() if count}
    return counts | ({"hidden": labels[-1]} if -1 in labels else {})


@contextlib.contextmanager
def _temporary(data_dir: Path) -> Iterator[Path]:
    """Makes a temporary folder; `data_dir` is removed with it if it is new and empty."""
    new = not data_dir.exists()
    data_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=data_dir))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if new:
            with contextlib.suppress(OSError):
                data_dir.rmdir()


def _move(written: Path, target: Path, work: Path, force: bool) -> None:
    """Moves a directory to its final path, with `force` in place of an existing one.

    Raises:
        UserError: if another process has written the data set meanwhile.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    replaced = work / "replaced"
    if target.exists():
        if not force:
            raise UserError(f"{target} was written by another process meanwhile; it is not changed")
        os.rename(target, replaced)
    try:
        os.rename(written, target)
    except BaseException:
        if replaced.exists():
            os.rename(replaced, target)
        raise
