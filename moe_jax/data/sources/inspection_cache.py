"""What was found out about a file when it was read to its end, remembered for the next start.

A verdict is kept in the cache under the file's path, size and times of change. Files that changed
just before they were read are looked at again: a clock may be too coarse to tell a later change.
"""

import dataclasses
import hashlib
import json
import os
import time
import uuid
from pathlib import Path

from moe_jax.data.sources.cache_directory import cache_directory
from moe_jax.data.sources.file_reader import FileStamp

# To be raised when files are judged differently.
_VERSION = 2
# Smaller files are read again sooner than their verdict is found.
_LEAST_BYTES = 1 << 16
_SETTLED_SECONDS = 2.0
_UNKNOWN = FileStamp(0, 0, 0)


@dataclasses.dataclass(frozen=True)
class FileInspection:
    """What a file is.

    Attributes:
        problem: why it cannot be used, as what follows its name; None if it can.
        checksum: SHA-256 of the bytes that are stored.
        stamp: size and times of the file when it was read.
        path: what is read: the file, or a copy of its texts in the cache.
        field: the text's field in the records at `path`; None for lines of text.
        packed: whether `path` is packed with gzip.
        mark: whether the lines start with a byte-order mark.
        note: what should be said about the file, or None.
    """

    problem: str | None
    checksum: str = ""
    stamp: FileStamp = _UNKNOWN
    path: str = ""
    field: str | None = None
    packed: bool = False
    mark: bool = False
    note: str | None = None


def load_inspection(path: str, stamp: FileStamp, *how: str) -> FileInspection | None:
    """Returns what was found out about a file, None if it is not known or its copy is gone.

    Args:
        path: of the file.
        stamp: of the file now.
        how: as what it was read.
    """
    try:
        known = json.loads(_place(path, stamp, *how).read_text())
        verdict = FileInspection(**{**known, "stamp": FileStamp(*known["stamp"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    copied = not verdict.problem and verdict.path != path
    return None if copied and not os.path.exists(verdict.path) else verdict


def save_inspection(path: str, verdict: FileInspection, *how: str) -> None:
    """Keeps a verdict, if it can be kept and is worth it."""
    copied = bool(verdict.path) and verdict.path != path
    settled = abs(time.time() - verdict.stamp.modified / 1e9) > _SETTLED_SECONDS
    if settled and (copied or verdict.stamp.size >= _LEAST_BYTES):
        place = _place(path, verdict.stamp, *how)
        write_cache_file(place, json.dumps(dataclasses.asdict(verdict)))


def write_cache_file(place: Path, text: str) -> None:
    """Writes a file of the cache at once; without a word where that is impossible."""
    own = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    try:
        own.write_text(text)
        os.replace(own, place)
    except OSError:
        own.unlink(missing_ok=True)


def _place(path: str, stamp: FileStamp, *how: str) -> Path:
    absolute = path if "://" in path else os.path.abspath(path)
    key = json.dumps([_VERSION, absolute, *stamp, *how])
    return cache_directory("files") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
