"""A user's files as the data of a task: their documents, validation split and digest."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable
from typing import Any

from moe_jax.data.sources.document_source import DocumentSource, find_holdout_split
from moe_jax.data.sources.file_discovery import SourceFiles, find_files
from moe_jax.data.sources.file_tasks import DEFAULT_FIELD, SUFFIXES, name_parts
from moe_jax.data.sources.holdout_split import VERSION, HoldoutSplit


@dataclasses.dataclass(frozen=True)
class UserFiles:
    """The user's files that a task reads.

    Attributes:
        task: name of the task, such as `text:books`.
        found: the files.
        split: their validation split.
    """

    task: str
    found: SourceFiles
    split: HoldoutSplit

    def source(self) -> DocumentSource:
        """Returns the source of their documents."""
        return DocumentSource(self.found.files, self.split)

    def digest(self) -> str:
        """Returns a digest of the contents, their order and their split."""
        split = (VERSION, self.split.piece_bytes, self.split.first, self.split.last)
        fields = [file.field for file in self.found.files]
        key = json.dumps([self.found.digest(), fields, split])
        return hashlib.sha256(key.encode()).hexdigest()[:32]

    def notes(self) -> tuple[str, ...]:
        """Returns the notes for the user about the files."""
        note = self.split.note()
        return (*self.found.notes(), *([note] if note else []))

    def record(self) -> dict[str, Any]:
        """Returns the entry of the files in `run.json`."""
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
    """Returns the user's files of a task, None if it is of another kind.

    Raises:
        UserError: if there are no files, or none that can be used.
    """
    kind, _, files = task.partition(":")
    return _find_user_files(task) if kind in SUFFIXES and files else None


@functools.cache
def _find_user_files(task: str) -> UserFiles:
    kind, files, field = name_parts(task)
    found = find_files(kind, files, field or DEFAULT_FIELD)
    return UserFiles(task, found, find_holdout_split(found))


def files_digest(tasks: Iterable[str]) -> str | None:
    """Returns a digest of the user's files of these tasks, None if there are none."""
    found = [files.digest() for files in map(find_user_files, tasks) if files is not None]
    return " ".join(found) or None


def clear_caches() -> None:
    """Makes the files be searched for again; otherwise they are found once per process."""
    find_files.cache_clear()
    _find_user_files.cache_clear()
