"""JSON lines, turned once into TFRecord files that TensorFlow can read and stream.

TensorFlow has no JSON parser, and an iterator over Python code could not be saved. So the texts
of a JSONL file are copied once to a directory of the cache, under a name made from the file's
path, size and time: a file that has changed is copied anew.
"""

import gzip
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from etils import epath

from moe_jax.errors import UserError

# Above this share of lines that do not parse, a file is not what it is said to be.
MOST_BAD_LINES = 0.01


def convert(path: str, field: str) -> tuple[str, str | None]:
    """Copies the texts of a JSONL file to the cache, unless they are there.

    Args:
        path: of the file, `.gz` or plain.
        field: with the text; `a.b` is field b of field a.

    Returns:
        the TFRecord file, and a line about lines that were left out, or None.

    Raises:
        UserError: if no line has the field, or more than 1% of the lines have no text in it.
    """
    target = _cache_directory() / f"{_identity(path, field)}.tfrecord"
    note = target.with_suffix(".note")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes each writes its own file; the last name to be given stays.
        own = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
        bad, total, first = _write(path, field, own)
        left_out = (
            f"{path}: {bad} of {total} lines are left out (the first: {first})" if bad else ""
        )
        note.write_text(left_out)
        os.replace(own, target)
    return str(target), note.read_text() or None


def _write(path: str, field: str, target: Path) -> tuple[int, int, str]:
    """Writes the texts; returns lines left out, lines in all, and what is wrong with the first."""
    bad, total, first = 0, 0, ""
    try:
        with tf.io.TFRecordWriter(str(target)) as writer:
            for number, line in enumerate(_lines(path), 1):
                if not line.strip():
                    continue
                total += 1
                try:
                    text = _text(line, field)
                except ValueError as error:
                    bad += 1
                    first = first or f"line {number}: {error}"
                    continue
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                features = tf.train.Features(feature={"text": feature})
                writer.write(tf.train.Example(features=features).SerializeToString())
        if not total:
            raise UserError(f"{path} has no lines")
        if bad > MOST_BAD_LINES * total:
            raise UserError(
                f"{path}: {bad} of {total} lines have no text in the field {field!r} "
                f"(the first: {first}); name the field after a #, such as jsonl:FILES#content"
            )
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return bad, total, first


def _lines(path: str) -> Iterator[bytes]:
    with epath.Path(path).open("rb") as file:
        if not path.endswith(".gz"):
            yield from file
            return
        with gzip.open(file) as unpacked:
            yield from unpacked


def _text(line: bytes, field: str) -> str:
    """Returns the text of a line; a ValueError says what is wrong with it."""
    try:
        value = json.loads(line)
    except RecursionError:
        raise ValueError("too many brackets within brackets") from None
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            known = ", ".join(sorted(value)[:8]) if isinstance(value, dict) else "no object"
            raise ValueError(f"no field {field!r}; it has: {known}")
        value = value[name]
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is no text but {type(value).__name__}")
    # Lone surrogates are valid JSON and no valid text.
    return value.encode("utf-8", "replace").decode("utf-8")


def _cache_directory() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "moe_jax" / "jsonl"


def _identity(path: str, field: str) -> str:
    stat = tf.io.gfile.stat(path)
    absolute = path if "://" in path else os.path.abspath(path)
    key = json.dumps([absolute, field, stat.length, stat.mtime_nsec])
    return hashlib.sha256(key.encode()).hexdigest()[:24]
