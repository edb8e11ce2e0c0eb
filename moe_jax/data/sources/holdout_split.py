"""The validation split of a user's files: about one in twenty bytes, by fingerprints of the text.

Documents are split into pieces of bounded size, and a piece is held out if its fingerprint is in a
range. So the same text is always in the same split, however often and wherever it occurs. The range
of a small corpus is chosen so that its pieces hold a twentieth of the bytes; in a large one it is
a twentieth of all fingerprints.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from moe_jax.data.sources.cache_directory import cache_directory, write_cache_file
from moe_jax.data.sources.file_discovery import SourceFiles

# To be raised when the split of the same files changes.
VERSION = 4
HELD_OUT_EVERY = 20
# Tokenising takes memory in proportion to the length of a piece. Small corpora have a hundred
# pieces or more.
MAX_PIECE_BYTES, MIN_PIECE_BYTES, MIN_PIECES = 1 << 16, 1 << 8, 100
# A corpus from this size on has too many pieces for their sizes to matter.
_LARGE = 1 << 30
_FINGERPRINTS = 1 << 62
# Accepted difference of the held-out share of the bytes from a twentieth.
_TOLERANCE = 0.002
_MIN_CACHED_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class HoldoutSplit:
    """A split of documents into pieces, some of which are held out.

    Attributes:
        piece_bytes: approximate maximum size of a piece.
        first: first fingerprint that is held out.
        last: one past the last fingerprint that is held out.
        pieces: number of pieces; 0 if they were not counted.
        repeated: number of pieces that are equal to an earlier one.
    """

    piece_bytes: int
    first: int
    last: int
    pieces: int = 0
    repeated: int = 0

    def holds_out(self, text: tf.Tensor) -> tf.Tensor:
        """Returns whether pieces are held out, [N] bool."""
        prints = fingerprint(text)
        return tf.logical_and(prints >= self.first, prints < self.last)

    def note(self) -> str | None:
        """Returns a note for the user about repeated pieces, None if there are none."""
        if not self.repeated:
            return None
        return (
            f"{self.repeated:,} of {self.pieces:,} pieces of text are the same as another; all of "
            "the same are held out, or none"
        )


def fingerprint(text: tf.Tensor) -> tf.Tensor:
    """Returns a 62-bit hash of texts, int64."""
    return tf.strings.to_hash_bucket_fast(text, _FINGERPRINTS)


def fingerprints_and_sizes(texts: tf.Tensor) -> tf.Tensor:
    """Returns the fingerprints and the bytes of pieces, [N, 2] int64.

    Args:
        texts: [N] string.
    """
    sizes = tf.cast(tf.strings.length(texts), tf.int64)
    return tf.stack([fingerprint(texts), sizes], axis=1)


def piece_bytes(stored: int) -> int:
    """Returns the approximate maximum size of a piece for files of `stored` bytes."""
    return min(max(stored // MIN_PIECES, MIN_PIECE_BYTES), MAX_PIECE_BYTES)


def compute_split(
    found: SourceFiles, read_pieces: Callable[[int], tf.data.Dataset]
) -> HoldoutSplit:
    """Computes the split of files.

    Args:
        found: the files.
        read_pieces: from the maximum size of a piece to the `fingerprints_and_sizes` of all pieces
            of all files, one by one.
    """
    stored = sum(file.stamp.size for file in found.files)
    size = piece_bytes(stored)
    if stored >= _LARGE:
        return HoldoutSplit(size, 0, _FINGERPRINTS // HELD_OUT_EVERY)
    place = _place(found, size)
    if stored >= _MIN_CACHED_BYTES and (known := _recall(place)):
        return known
    parts = list(read_pieces(size).batch(4096).as_numpy_iterator())
    facts = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    split = choose_range(facts[:, 0], facts[:, 1], size)
    if stored >= _MIN_CACHED_BYTES:
        write_cache_file(place, json.dumps(dataclasses.asdict(split)))
    return split


def choose_range(prints: np.ndarray, sizes: np.ndarray, size: int) -> HoldoutSplit:
    """Returns the first range of fingerprints with about a twentieth of the bytes.

    Args:
        prints: fingerprints of all pieces, [N] int64.
        sizes: their bytes, [N] int64.
        size: maximum size of a piece.
    """
    unique, inverse = np.unique(prints, return_inverse=True)
    count = len(unique)
    repeated = len(prints) - count
    if count < 2:
        # All pieces are equal: they are training data.
        return HoldoutSplit(size, 0, 0, len(prints), repeated)
    ends = np.cumsum(np.bincount(inverse, weights=sizes))
    before = np.concatenate([[0.0], ends[:-1]])
    total = ends[-1]
    # For each first piece of a range the last piece with the nearest size, at least one piece.
    wanted = before + total / HELD_OUT_EVERY
    last = np.clip(np.searchsorted(ends, wanted), 0, count - 1)
    shorter = np.maximum(last - 1, np.arange(count))
    last = np.where(np.abs(ends[shorter] - wanted) <= np.abs(ends[last] - wanted), shorter, last)
    error = np.abs(ends[last] - wanted) / total
    # A range of all pieces would leave no training data.
    error[(np.arange(count) == 0) & (last == count - 1)] = np.inf
    within = np.flatnonzero(error <= _TOLERANCE)
    first = int(within[0]) if len(within) else int(np.argmin(error))
    return HoldoutSplit(
        size, int(unique[first]), int(unique[last[first]]) + 1, len(prints), repeated
    )


def _place(found: SourceFiles, size: int) -> Path:
    fields = [file.field for file in found.files]
    key = json.dumps([VERSION, found.digest(), fields, size])
    name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_directory("files") / f"{name}.split.json"


def _recall(place: Path) -> HoldoutSplit | None:
    try:
        return HoldoutSplit(**json.loads(place.read_text()))
    except (OSError, ValueError, TypeError):
        return None
