"""A user's own text files: found, checked, and read as documents.

A document is a run of `LINES_PER_DOCUMENT` lines of one file, so that files of any size stream.
Every `HELD_OUT_EVERY`-th document of a file is validation data, the others are training data.
"""

import glob
import os

import tensorflow as tf

from moe_jax.errors import UserError

LINES_PER_DOCUMENT = 64
HELD_OUT_EVERY = 20
_PROBE_BYTES = 1 << 20


def find_text_files(pattern: str) -> list[str]:
    """Returns the files that match, sorted, each checked to be text.

    Args:
        pattern: a path with `*` and `?`, several of them separated by commas; `~` is the home
            directory.

    Raises:
        UserError: if nothing matches, or a file is empty, binary or not UTF-8.
    """
    paths: list[str] = []
    for part in pattern.split(","):
        expanded = os.path.expanduser(part.strip())
        if "://" in expanded:
            paths += tf.io.gfile.glob(expanded)
        else:
            paths += [p for p in glob.glob(expanded, recursive=True) if os.path.isfile(p)]
    if not paths:
        raise UserError(f"no text file matches {pattern!r} (looked from {os.getcwd()})")
    paths = sorted(set(paths))
    for path in paths:
        _check_text(path)
    return paths


def _check_text(path: str) -> None:
    """Reads the first megabyte and refuses what is not UTF-8 text."""
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            head = file.read(_PROBE_BYTES)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not head.strip():
        raise UserError(f"{path} is empty: a text file with UTF-8 text was expected")
    if b"\0" in head:
        raise UserError(f"{path} is not a text file (it has NUL bytes): UTF-8 text was expected")
    try:
        # A character may be cut at the end of the probe.
        head[:-4].decode("utf-8") if len(head) == _PROBE_BYTES else head.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text (byte {error.start}): convert it, "
            f"for example with `iconv -t UTF-8`"
        ) from None


def text_documents(paths: list[str], split: str) -> tf.data.Dataset:
    """Returns the documents of a split, {"targets": text}, streamed in file order."""

    def of_file(path: tf.Tensor) -> tf.data.Dataset:
        lines = tf.data.TextLineDataset(path).batch(LINES_PER_DOCUMENT)
        return lines.enumerate().filter(wanted).map(join)

    def wanted(index: tf.Tensor, lines: tf.Tensor) -> tf.Tensor:
        del lines
        held_out = tf.equal(index % HELD_OUT_EVERY, HELD_OUT_EVERY // 2)
        return held_out if split == "validation" else tf.logical_not(held_out)

    def join(index: tf.Tensor, lines: tf.Tensor) -> dict[str, tf.Tensor]:
        del index
        return {"targets": tf.strings.reduce_join(lines, separator="\n") + "\n"}

    return tf.data.Dataset.from_tensor_slices(paths).flat_map(of_file)
