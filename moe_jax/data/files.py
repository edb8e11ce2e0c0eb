"""A user's own files: found, and looked at before anything is trained on them.

A directory stands for the files of its kind in it, at any depth; gzipped files are read as they
are. A file that cannot be used is left out and named; only when none is left is it an error.
"""

import dataclasses
import functools
import glob
import gzip
import os
import zlib
from collections.abc import Callable

import tensorflow as tf

from moe_jax.errors import UserError

_PROBE_BYTES = 1 << 20
# Files named in a message; of the others only the number is told.
_NAMED = 5
TEXT_SUFFIXES = (".txt", ".md", ".text")
JSONL_SUFFIXES = (".jsonl", ".json", ".ndjson")
TFRECORD_SUFFIXES = (".tfrecord", ".tfrecords")


@dataclasses.dataclass(frozen=True)
class FoundFiles:
    """What a pattern stands for.

    Attributes:
        paths: the files, sorted.
        left_out: one line for each file that cannot be used: its name and the reason.
    """

    paths: tuple[str, ...]
    left_out: tuple[str, ...]

    def notes(self) -> tuple[str, ...]:
        """Returns what a user should be told, in a few lines."""
        if not self.left_out:
            return ()
        total = len(self.paths) + len(self.left_out)
        more = len(self.left_out) - _NAMED
        return (
            f"{len(self.left_out)} of {total} files are left out:",
            *(f"  {line}" for line in self.left_out[:_NAMED]),
            *([f"  and {more} more"] if more > 0 else []),
        )


@functools.cache
def find_text_files(pattern: str) -> FoundFiles:
    """Returns the files of UTF-8 text that match.

    Args:
        pattern: a file, a directory, or a path with `*`, `?` and `**`; several of them separated
            by commas; `~` is the home directory.

    Raises:
        UserError: if nothing matches, or no file that does can be used.
    """
    return _find(pattern, TEXT_SUFFIXES, _what_is_wrong_with_text)


@functools.cache
def find_files(pattern: str, suffixes: tuple[str, ...]) -> FoundFiles:
    """Returns the files that match and are not empty, of these suffixes in directories.

    Raises:
        UserError: if nothing matches, or no file that does can be used.
    """
    return _find(pattern, suffixes, _what_is_wrong)


def _find(
    pattern: str, suffixes: tuple[str, ...], problem: Callable[[str], str | None]
) -> FoundFiles:
    paths = sorted({path for part in pattern.split(",") for path in _expand(part, suffixes)})
    if not paths:
        shown = ", ".join(suffixes)
        raise UserError(
            f"no file matches {pattern!r} (looked from {os.getcwd()}; in a directory: {shown})"
        )
    problems = {path: problem(path) for path in paths}
    left_out = tuple(f"{path} {why}" for path, why in problems.items() if why)
    good = tuple(path for path, why in problems.items() if not why)
    if not good:
        shown = "; ".join(left_out[:_NAMED])
        raise UserError(f"no file that matches {pattern!r} can be used: {shown}")
    return FoundFiles(good, left_out)


def _expand(part: str, suffixes: tuple[str, ...]) -> list[str]:
    """Returns the files that one path or pattern stands for."""
    path = os.path.expanduser(part.strip())
    if "://" in path:
        if tf.io.gfile.isdir(path):
            walked = tf.io.gfile.walk(path)
            found = [
                f"{folder.rstrip('/')}/{name}" for folder, _, names in walked for name in names
            ]
            return [name for name in found if _has_suffix(name, suffixes)]
        return list(tf.io.gfile.glob(path))
    if os.path.isdir(path):
        found = glob.glob(os.path.join(glob.escape(path), "**"), recursive=True)
        return [name for name in found if os.path.isfile(name) and _has_suffix(name, suffixes)]
    return [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().removesuffix(".gz").endswith(suffixes)


def _head(path: str) -> bytes | str:
    """Returns the first megabyte of a file, or why it cannot be read."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            if path.endswith(".gz"):
                with gzip.GzipFile(fileobj=file) as unpacked:
                    return unpacked.read(_PROBE_BYTES)
            head: bytes = file.read(_PROBE_BYTES)
            return head
    except (OSError, EOFError, zlib.error, tf.errors.OpError) as error:
        return f"cannot be read ({type(error).__name__}: {error})"


def _what_is_wrong(path: str) -> str | None:
    head = _head(path)
    if isinstance(head, str):
        return head
    return None if head else "is empty"


def _what_is_wrong_with_text(path: str) -> str | None:
    """Returns why a file is not UTF-8 text, from its first megabyte, or None."""
    head = _head(path)
    if isinstance(head, str):
        return head
    if not head.strip():
        return "is empty"
    if b"\0" in head:
        return "is not a text file (it has NUL bytes)"
    if b"\r" in head and b"\n" not in head:
        # TensorFlow drops carriage returns, which would join the words around them.
        return "has carriage returns as line ends; convert it, for example with `tr '\\r' '\\n'`"
    try:
        # A character may be cut at the end of the probe.
        (head[:-4] if len(head) == _PROBE_BYTES else head).decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        if len(head) == _PROBE_BYTES and error.start >= _PROBE_BYTES - 8:
            return None
        return (
            f"is not UTF-8 text (byte {error.start}); convert it, for example with `iconv -t UTF-8`"
        )
    return None
