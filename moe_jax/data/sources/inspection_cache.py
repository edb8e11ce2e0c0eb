"""Results of file inspections, cached for the next start.

A result is cached under the file's path, size and times of change. Files that changed just before
they were read are inspected again: a clock may be too coarse to distinguish a later change.
"""

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path

from moe_jax.data.sources.cache_directory import cache_directory, write_cache_file
from moe_jax.data.sources.file_reader import FileStamp

# To be raised when the inspection changes.
_VERSION = 2
# Smaller files are read faster than their result.
_MIN_BYTES = 1 << 16
_SETTLED_SECONDS = 2.0
_UNKNOWN = FileStamp(0, 0, 0)


@dataclasses.dataclass(frozen=True)
class FileInspection:
    """The result of an inspection of a file.

    Attributes:
        problem: reason why it cannot be used, as a predicate of its name; None if it can.
        checksum: SHA-256 of the stored bytes.
        stamp: size and times of the file when it was read.
        path: the file that is read, or a copy of its texts in the cache.
        field: field with the text in the records at `path`; None for lines of text.
        packed: whether `path` is compressed with gzip.
        mark: whether the lines start with a byte-order mark.
        note: note for the user about the file, or None.
    """

    problem: str | None
    checksum: str = ""
    stamp: FileStamp = _UNKNOWN
    path: str = ""
    field: str | None = None
    packed: bool = False
    mark: bool = False
    note: str | None = None


def load_inspection(path: str, stamp: FileStamp, *key: str) -> FileInspection | None:
    """Returns the cached result for a file, None if there is none or its copy is gone.

    Args:
        path: path of the file.
        stamp: current size and times of the file.
        key: kind and field of the inspection.
    """
    try:
        known = json.loads(_place(path, stamp, *key).read_text())
        inspection = FileInspection(**{**known, "stamp": FileStamp(*known["stamp"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    copied = not inspection.problem and inspection.path != path
    return None if copied and not os.path.exists(inspection.path) else inspection


def save_inspection(path: str, inspection: FileInspection, *key: str) -> None:
    """Caches a result, if that saves time."""
    copied = bool(inspection.path) and inspection.path != path
    settled = abs(time.time() - inspection.stamp.modified / 1e9) > _SETTLED_SECONDS
    if settled and (copied or inspection.stamp.size >= _MIN_BYTES):
        place = _place(path, inspection.stamp, *key)
        write_cache_file(place, json.dumps(dataclasses.asdict(inspection)))


def _place(path: str, stamp: FileStamp, *key: str) -> Path:
    absolute = path if "://" in path else os.path.abspath(path)
    text = json.dumps([_VERSION, absolute, *stamp, *key])
    return cache_directory("files") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
