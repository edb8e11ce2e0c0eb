"""Inspects files to their ends, by kind: text, JSON, TFRecords."""

import contextlib
import dataclasses
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf

from moe_jax.data.sources import json_texts
from moe_jax.data.sources.cache_directory import cache_directory
from moe_jax.data.sources.file_reader import ByteCounter, FileReader, UnusableFileError
from moe_jax.data.sources.inspection_cache import FileInspection
from moe_jax.data.sources.plain_text import MAX_LINE_BYTES, check_text, text_documents
from moe_jax.errors import UserError

# A file with a larger share of records without a text is refused.
MAX_BAD_RECORDS = 0.01
_COPIED_FIELD = "text"


def inspect_file(path: str, kind: str, field: str, counter: ByteCounter) -> FileInspection:
    """Reads a file to its end, and returns whether and how it can be used.

    Args:
        path: path of the file.
        kind: `text`, `jsonl` or `tfrecord`.
        field: field with the text, in JSON and TFRecords.
        counter: counts the bytes that are read.
    """
    try:
        file = FileReader(path, counter)
    except (OSError, tf.errors.OpError) as error:
        return FileInspection(_unreadable(error))
    inspect = {"text": _text, "jsonl": _json, "tfrecord": _records}[kind]
    try:
        return inspect(path, file, field)
    except UnusableFileError as error:
        return FileInspection(str(error), stamp=file.stamp)
    except (OSError, tf.errors.OpError) as error:
        return FileInspection(_unreadable(error))


def _unreadable(error: Exception) -> str:
    return f"cannot be read ({_reason(error)})"


def _reason(error: Exception) -> str:
    """Returns the reason of an error in one line."""
    reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    return next(iter(str(reason).splitlines()), type(error).__name__)


def _good(
    file: FileReader, path: str, field: str | None = None, note: str | None = None
) -> FileInspection:
    return FileInspection(None, file.checksum, file.stamp, path, field, note=note)


def _text(path: str, file: FileReader, field: str) -> FileInspection:
    del field
    form = check_text(file.blocks())
    if form.returns or form.longest > MAX_LINE_BYTES or not file.plain_members:
        again = FileReader(path)
        copied = _copy(text_documents(again.blocks()), again, "text")
        return _good(file, copied, _COPIED_FIELD)
    return dataclasses.replace(_good(file, path), packed=file.packed, mark=form.mark)


def _json(path: str, file: FileReader, field: str) -> FileInspection:
    del path
    texts = json_texts.JsonTexts(file.blocks(), field)
    copied = _copy(texts, file, f"json {field}")
    return _good(file, copied, _COPIED_FIELD, texts.note())


def _copy(texts: Iterator[bytes], file: FileReader, how: str) -> str:
    """Writes texts to a TFRecord file of the cache, and returns its path.

    Files with the same content share a copy.

    Args:
        texts: UTF-8, as they are read from the file.
        file: the file, which the iterator reads to its end.
        how: kind and field of the inspection.

    Raises:
        UserError: if the copy cannot be written.
    """
    home = cache_directory("files")
    temporary = home / f".{uuid.uuid4().hex}"
    try:
        with _writing(home):
            writer = tf.io.TFRecordWriter(str(temporary))
        for text in texts:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))
            features = tf.train.Features(feature={_COPIED_FIELD: feature})
            with _writing(home):
                writer.write(tf.train.Example(features=features).SerializeToString())
        name = hashlib.sha256(f"{file.checksum} {how}".encode("utf-8", "surrogateescape"))
        target = home / f"{name.hexdigest()[:32]}.tfrecord"
        with _writing(home):
            writer.close()
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return str(target)


@contextlib.contextmanager
def _writing(home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"cannot write a copy of the texts to {home}: {_reason(error)}; XDG_CACHE_HOME names "
            "another directory for it"
        ) from None


def _records(path: str, file: FileReader, field: str) -> FileInspection:
    for _ in file.blocks():
        pass
    if not file.stamp.size:
        raise UnusableFileError("is empty")
    records = tf.data.TFRecordDataset(
        tf.constant([os.fsencode(path)]), "GZIP" if file.packed else ""
    )
    try:
        total, good = records.batch(256).reduce(
            tf.zeros(2, tf.int64),
            lambda sums, some: (
                sums
                + tf.stack([tf.size(some, tf.int64), tf.size(parse_texts(some, field), tf.int64)])
            ),
        )
    except tf.errors.DataLossError as error:
        raise UnusableFileError(_data_loss(error.message)) from None
    except tf.errors.InvalidArgumentError as error:
        raise UnusableFileError(_not_examples(records, field, error.message)) from None
    total, without = int(total), int(total - good)
    if total == 0:
        raise UnusableFileError("has no records")
    if without > MAX_BAD_RECORDS * total:
        raise UnusableFileError(_no_field(records, field, without, total))
    note = f"{without} of {total} records have no text in the field {field!r}"
    found = _good(file, path, field, note if without else None)
    return dataclasses.replace(found, packed=file.packed)


def parse_texts(records: tf.Tensor, field: str) -> tf.Tensor:
    """Parses the texts of serialised tf.train.Examples, [M] string; those without one are skipped.

    Args:
        records: [N] string.
        field: feature with the text, the first value if there are several.
    """
    parsed = tf.io.parse_example(records, {field: tf.io.RaggedFeature(tf.string)})
    return parsed[field][:, :1].values


def _data_loss(message: str) -> str:
    place = re.search(r"(truncated|corrupted) record at (\d+)", message)
    if place is None:
        return f"is no TFRecord file, or a damaged one ({message.splitlines()[0]})"
    if place[2] == "0":
        return "is no TFRecord file (its first record is damaged)"
    what = "ends too early" if place[1] == "truncated" else "is damaged"
    return f"{what}: the record that begins at byte {place[2]}"


def _first(records: tf.data.Dataset) -> tf.train.Example | None:
    try:
        example: tf.train.Example = tf.train.Example.FromString(
            next(records.take(1).as_numpy_iterator(), b"")
        )
    except Exception:  # Parsing anything else fails in many ways.
        return None
    return example


def _not_examples(records: tf.data.Dataset, field: str, message: str) -> str:
    example = _first(records)
    if example is None:
        return "is no TFRecord file of tf.train.Example"
    known = example.features.feature
    kind = known[field].WhichOneof("kind") if field in known else None
    if kind and kind != "bytes_list":
        return f"has no text in the field {field!r} but a {kind.removesuffix('_list')} list"
    return f"has records that are no tf.train.Example with a text ({message.splitlines()[0]})"


def _no_field(records: tf.data.Dataset, field: str, without: int, total: int) -> str:
    example = _first(records)
    names = sorted(example.features.feature) if example else []
    known = ", ".join(name for name in names if name != field) or "nothing"
    how_many = "" if without == total else f" in {without} of {total} records"
    return (
        f"has no text in the field {field!r}{how_many}; it has: {known[:200]}. Name the field "
        "after a #, such as tfrecord:FILES#content"
    )
