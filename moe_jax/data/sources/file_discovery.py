"""Finds a user's files, and inspects each to its end before training.

A directory means the files of its kind in it, at any depth; gzipped files are read directly. A file
that cannot be used is skipped with a note; it is an error if none is left.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator

from moe_jax.data.sources import file_patterns, file_reader
from moe_jax.data.sources.cache_directory import cache_note
from moe_jax.data.sources.file_inspection import inspect_file
from moe_jax.data.sources.file_patterns import MatchedFiles, printable_path
from moe_jax.data.sources.file_reader import ByteCounter
from moe_jax.data.sources.file_tasks import SUFFIXES
from moe_jax.data.sources.inspection_cache import FileInspection, load_inspection, save_inspection
from moe_jax.errors import UserError

# Maximum number of files named in a message.
_MAX_NAMED = 5
_THREADS = 8
# Seconds until the first report of the progress, and between later ones.
_FIRST_REPORT, _NEXT_REPORT = 3.0, 10.0
_report: Callable[[str], None] | None = None


@contextlib.contextmanager
def progress_to(report: Callable[[str], None]) -> Iterator[None]:
    """Calls `report` with lines about the progress of reading files inside the context."""
    global _report
    before, _report = _report, report
    try:
        yield
    finally:
        _report = before


@dataclasses.dataclass(frozen=True)
class SourceFile(FileInspection):
    """A file that is read.

    Attributes:
        name: name under which it was found.
    """

    name: str = ""


@dataclasses.dataclass(frozen=True)
class SourceFiles:
    """The files of a task.

    Attributes:
        files: files that are read, in the order of their names.
        left_out: a line for each file that cannot be used: its name and the reason.
        remarks: lines about other files.
    """

    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the files."""
        return tuple(file.name for file in self.files)

    def digest(self) -> str:
        """Returns a digest of the contents and their order."""
        sums = " ".join(file.checksum for file in self.files)
        return hashlib.sha256(sums.encode()).hexdigest()[:32]

    def notes(self) -> tuple[str, ...]:
        """Returns the notes for the user, in a few lines."""
        left_out: list[str] = []
        if self.left_out:
            total = len(self.files) + len(self.left_out)
            left_out = [f"{len(self.left_out)} of {total} files are left out:"]
            left_out += _first_of(self.left_out)
        noted = [f"{printable_path(file.name)}: {file.note}" for file in self.files if file.note]
        return (*left_out, *_first_of(noted, indent=""), *self.remarks)


def _first_of(lines: list[str] | tuple[str, ...], indent: str = "  ") -> list[str]:
    more = [f"{indent}and {len(lines) - _MAX_NAMED} more"] if len(lines) > _MAX_NAMED else []
    return [*(f"{indent}{line}" for line in lines[:_MAX_NAMED]), *more]


@functools.cache
def find_files(kind: str, files: str, field: str = "text") -> SourceFiles:
    """Returns the matching files that can be used, each inspected to its end.

    Args:
        kind: `text`, `jsonl` or `tfrecord`.
        files: a file, a directory, or a path with `*`, `?`, `[...]` and `**`; several of them
            separated by commas; `~` is the home directory.
        field: field with the text, in JSON and TFRecords.

    Raises:
        UserError: if no file matches, or none of the matching files can be used.
    """
    result = file_patterns.match_files(files, SUFFIXES[kind])
    if not result.paths and set(result.problems.values()) <= {file_patterns.NO_FILE}:
        suffixes = ", ".join(SUFFIXES[kind])
        raise UserError(
            f"no file matches {printable_path(files)!r} (looked from {os.getcwd()}; in a "
            f"directory: {suffixes}){_others(result)}"
        )
    inspections = _inspect_all(result.paths, kind, field)
    problems = {**result.problems, **{p: v.problem for p, v in inspections.items() if v.problem}}
    left_out = tuple(f"{printable_path(path)} {problems[path]}" for path in sorted(problems))
    good = tuple(
        SourceFile(**vars(inspection), name=path)
        for path, inspection in inspections.items()
        if not inspection.problem
    )
    if not good:
        first = "; ".join(left_out[:_MAX_NAMED])
        more = f"; and {len(left_out) - _MAX_NAMED} more" if len(left_out) > _MAX_NAMED else ""
        raise UserError(
            f"no file that matches {printable_path(files)!r} can be used: {first}{more}"
        )
    runs = [
        f"the run directory {printable_path(run)} is not read" for run in sorted(set(result.runs))
    ]
    remarks = [_others(result).strip(" ;"), *_first_of(runs, indent=""), cache_note() or ""]
    return SourceFiles(good, left_out, tuple(line for line in remarks if line))


def _others(result: MatchedFiles) -> str:
    """Returns a remark about files of other kinds, or an empty text."""
    if not result.others:
        return ""
    count, first = len(result.others), printable_path(sorted(result.others)[0])
    what = f"{count} files of other kinds are" if count > 1 else "1 file of another kind is"
    return f"; {what} not read ({first}{', ...' if count > 1 else ''}); name what is to be read"


def _inspect_all(paths: list[str], kind: str, field: str) -> dict[str, FileInspection]:
    """Returns the inspection of each file, from the cache or by reading it."""
    counter, inspections = ByteCounter(), dict[str, FileInspection]()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        futures = {p: pool.submit(_load_or_inspect, p, kind, field, counter) for p in paths}
        waiting, started = set(futures.values()), time.monotonic()
        interval = _FIRST_REPORT
        while waiting:
            _, waiting = concurrent.futures.wait(waiting, interval)
            if waiting and _report is not None:
                gone = time.monotonic() - started
                _report(
                    f"reading the files to their ends (once, then it is remembered): "
                    f"{counter.bytes / 1e9:.2f} GB in {gone:.0f} s, "
                    f"{len(paths) - len(waiting)} of {len(paths)} files"
                )
                interval = _NEXT_REPORT
        for path, future in futures.items():
            inspections[path] = future.result()
    return inspections


def _load_or_inspect(path: str, kind: str, field: str, counter: ByteCounter) -> FileInspection:
    with contextlib.suppress(Exception):  # Such a file cannot be read either.
        if known := load_inspection(path, file_reader.file_stamp(path), kind, field):
            return known
    inspection = inspect_file(path, kind, field, counter)
    save_inspection(path, inspection, kind, field)
    return inspection
