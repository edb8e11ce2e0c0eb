"""A user's own files as the data of a task: what is read, how it is split, and what they are."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from moe_jax.data.sources import holdout_split as splits
from moe_jax.data.sources.document_source import DocumentSource, find_holdout_split
from moe_jax.data.sources.file_discovery import SUFFIXES, SourceFiles, find_files
from moe_jax.data.sources.file_patterns import split_field
from moe_jax.data.sources.holdout_split import HoldoutSplit

DEFAULT_FIELD = "text"


@dataclasses.dataclass(frozen=True)
class UserFiles:
    """The files of a task.

    Attributes:
        task: its name, such as `text:books`.
        found: the files.
        split: what is held out of them.
    """

    task: str
    found: SourceFiles
    split: HoldoutSplit

    def source(self) -> DocumentSource:
        """Returns their documents."""
        return DocumentSource(self.found.files, self.split)

    def digest(self) -> str:
        """Returns what data that differ in anything, or in their split, would not have."""
        split = (splits.VERSION, self.split.piece_bytes, self.split.first, self.split.last)
        fields = [file.field for file in self.found.files]
        key = json.dumps([self.found.digest(), fields, split])
        return hashlib.sha256(key.encode()).hexdigest()[:32]

    def notes(self) -> tuple[str, ...]:
        """Returns what a user should be told."""
        note = self.split.note()
        return (*self.found.notes(), *([note] if note else []))

    def record(self) -> dict[str, Any]:
        """Returns what a run writes down about them."""
        return {
            "digest": self.digest(),
            "bytes": sum(file.stamp.size for file in self.found.files),
            "piece_bytes": self.split.piece_bytes,
            "files": [
                {
                    "name": file.name,
                    "size": file.stamp.size,
                    "modified": file.stamp.modified / 1e9,
                    "sha256": file.checksum,
                }
                for file in self.found.files
            ],
        }


def find_user_files(task: str) -> UserFiles | None:
    """Returns the files that a task names, None if it is of another kind.

    Raises:
        UserError: if nothing is there, or nothing that can be used.
    """
    kind, _, files = task.partition(":")
    return _find_user_files(task) if kind in SUFFIXES and files else None


@functools.cache
def _find_user_files(task: str) -> UserFiles:
    kind, files, field = _parts(task)
    found = find_files(kind, files, field or DEFAULT_FIELD)
    return UserFiles(task, found, find_holdout_split(found))


def _parts(task: str) -> tuple[str, str, str | None]:
    """Returns kind, names and field of a task."""
    kind, _, files = task.partition(":")
    return (kind, files, None) if kind == "text" else (kind, *split_field(files))


def files_digest(tasks: Iterable[str]) -> str | None:
    """Returns what other files of these tasks would not have, None if none has own files."""
    found = [own.digest() for own in map(find_user_files, tasks) if own is not None]
    return " ".join(found) or None


def without_paths(task: str) -> str:
    """Returns the name of a task without the places of its files, which may be moved."""
    if task.partition(":")[0] not in SUFFIXES:
        return task
    kind, _, field = _parts(task)
    return f"{kind}:FILES" + (f"#{field}" if field not in (None, DEFAULT_FIELD) else "")


def forget() -> None:
    """Has the files looked for again, which are otherwise found once in a process."""
    find_files.cache_clear()
    _find_user_files.cache_clear()
