"""Which pieces of a user's files are held out: about one in twenty bytes, by their fingerprints.

Documents are cut into pieces of bounded size, and a piece is held out if its fingerprint is in a
range. So the same text is always on the same side, however often and wherever it is in the files.
The range of a small corpus is chosen so that its pieces hold a twentieth of the bytes; a
twentieth of all fingerprints does that in a large one.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from moe_jax.data.sources.cache_directory import cache_directory
from moe_jax.data.sources.file_discovery import SourceFiles
from moe_jax.data.sources.inspection_cache import write_cache_file

# To be raised when the same files are split differently.
VERSION = 4
HELD_OUT_EVERY = 20
# Tokenising takes memory by the length of a piece. Small corpora have a hundred pieces or more.
MOST_PIECE_BYTES, LEAST_PIECE_BYTES, LEAST_PIECES = 1 << 16, 1 << 8, 100
# A corpus from this size on has too many pieces for their sizes to matter.
_LARGE = 1 << 30
_FINGERPRINTS = 1 << 62
# A share of held-out bytes as near to a twentieth as this is taken.
_NEAR = 0.002
_LEAST_CACHED = 1 << 20


@dataclasses.dataclass(frozen=True)
class HoldoutSplit:
    """How documents are cut, and which pieces are held out.

    Attributes:
        piece_bytes: about the most bytes of a piece.
        first: the first fingerprint that is held out.
        last: one past the last fingerprint that is.
        pieces: how many there are; 0 if they were not counted.
        repeated: how many of them are the same as an earlier one.
    """

    piece_bytes: int
    first: int
    last: int
    pieces: int = 0
    repeated: int = 0

    def holds_out(self, text: tf.Tensor) -> tf.Tensor:
        """Returns whether pieces are held out, bool."""
        prints = fingerprint(text)
        return tf.logical_and(prints >= self.first, prints < self.last)

    def note(self) -> str | None:
        """Returns what should be said about repeated pieces, None if there are none."""
        if not self.repeated:
            return None
        return (
            f"{self.repeated:,} of {self.pieces:,} pieces of text are the same as another; all of "
            "the same are held out, or none"
        )


def fingerprint(text: tf.Tensor) -> tf.Tensor:
    """Returns 62 bits that depend on the text alone, int64."""
    return tf.strings.to_hash_bucket_fast(text, _FINGERPRINTS)


def fingerprints_and_sizes(texts: tf.Tensor) -> tf.Tensor:
    """Returns the fingerprints and the bytes of pieces, [N, 2] int64.

    Args:
        texts: [N] string.
    """
    sizes = tf.cast(tf.strings.length(texts), tf.int64)
    return tf.stack([fingerprint(texts), sizes], axis=1)


def piece_bytes(stored: int) -> int:
    """Returns about the most bytes of a piece of files with so many bytes."""
    return min(max(stored // LEAST_PIECES, LEAST_PIECE_BYTES), MOST_PIECE_BYTES)


def draw(found: SourceFiles, described: Callable[[int], tf.data.Dataset]) -> HoldoutSplit:
    """Returns the split of files.

    Args:
        found: the files.
        described: from the bytes of a piece to all pieces of all files, as `fingerprints_and_sizes`
            has them, one by one.
    """
    stored = sum(file.stamp.size for file in found.files)
    size = piece_bytes(stored)
    if stored >= _LARGE:
        return HoldoutSplit(size, 0, _FINGERPRINTS // HELD_OUT_EVERY)
    place = _place(found, size)
    if stored >= _LEAST_CACHED and (known := _recall(place)):
        return known
    parts = list(described(size).batch(4096).as_numpy_iterator())
    facts = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    split = choose(facts[:, 0], facts[:, 1], size)
    if stored >= _LEAST_CACHED:
        write_cache_file(place, json.dumps(dataclasses.asdict(split)))
    return split


def choose(prints: np.ndarray, sizes: np.ndarray, size: int) -> HoldoutSplit:
    """Returns the first range of fingerprints with about a twentieth of the bytes.

    Args:
        prints: fingerprints of all pieces, [N] int64.
        sizes: their bytes, [N] int64.
        size: the most bytes of a piece.
    """
    unique, inverse = np.unique(prints, return_inverse=True)
    count = len(unique)
    repeated = len(prints) - count
    if count < 2:
        # All is the same text: training has it.
        return HoldoutSplit(size, 0, 0, len(prints), repeated)
    ends = np.cumsum(np.bincount(inverse, weights=sizes))
    before = np.concatenate([[0.0], ends[:-1]])
    total = ends[-1]
    # For each first piece of a range the last that comes nearest, one piece in it at least.
    wanted = before + total / HELD_OUT_EVERY
    last = np.clip(np.searchsorted(ends, wanted), 0, count - 1)
    shorter = np.maximum(last - 1, np.arange(count))
    last = np.where(np.abs(ends[shorter] - wanted) <= np.abs(ends[last] - wanted), shorter, last)
    error = np.abs(ends[last] - wanted) / total
    # A range of everything would leave nothing to train on.
    error[(np.arange(count) == 0) & (last == count - 1)] = np.inf
    near = np.flatnonzero(error <= _NEAR)
    first = int(near[0]) if len(near) else int(np.argmin(error))
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
