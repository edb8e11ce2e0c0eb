"""A user's own files: found, and read to their ends before anything is trained on them.

A directory stands for the files of its kind in it, at any depth; gzipped files are read as they
are. A file that cannot be used is left out and named; only when none is left is it an error.
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
from moe_jax.data.sources.inspection_cache import FileInspection, load_inspection, save_inspection
from moe_jax.errors import UserError

# Files named in a message; of the others only the number is told.
_NAMED = 5
_THREADS = 8
# Seconds until something is said about the progress, and from then on.
_FIRST_WORD, _NEXT_WORD = 3.0, 10.0
SUFFIXES = {
    "text": (".txt", ".md", ".text"),
    "jsonl": (".jsonl", ".json", ".ndjson"),
    "tfrecord": (".tfrecord", ".tfrecords"),
}
_report: Callable[[str], None] | None = None


@contextlib.contextmanager
def progress_to(report: Callable[[str], None]) -> Iterator[None]:
    """Has `report` called with a line now and then while files are read inside."""
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
        name: as it was found.
    """

    name: str = ""


@dataclasses.dataclass(frozen=True)
class SourceFiles:
    """What the FILES of a task stand for.

    Attributes:
        files: those that are read, in the order of their names.
        left_out: one line for each file that cannot be used: its name and the reason.
        remarks: lines about the others.
    """

    files: tuple[SourceFile, ...]
    left_out: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the files that are read."""
        return tuple(file.name for file in self.files)

    def digest(self) -> str:
        """Returns what other contents, or the same in another order, would not have."""
        sums = " ".join(file.checksum for file in self.files)
        return hashlib.sha256(sums.encode()).hexdigest()[:32]

    def notes(self) -> tuple[str, ...]:
        """Returns what a user should be told, in a few lines."""
        left_out: list[str] = []
        if self.left_out:
            total = len(self.files) + len(self.left_out)
            left_out = [f"{len(self.left_out)} of {total} files are left out:"]
            left_out += _first_of(self.left_out)
        noted = [f"{printable_path(file.name)}: {file.note}" for file in self.files if file.note]
        return (*left_out, *_first_of(noted, indent=""), *self.remarks)


def _first_of(lines: list[str] | tuple[str, ...], indent: str = "  ") -> list[str]:
    more = [f"{indent}and {len(lines) - _NAMED} more"] if len(lines) > _NAMED else []
    return [*(f"{indent}{line}" for line in lines[:_NAMED]), *more]


@functools.cache
def find_files(kind: str, files: str, field: str = "text") -> SourceFiles:
    """Returns the files that are meant and can be used, each read to its end.

    Args:
        kind: `text`, `jsonl` or `tfrecord`.
        files: a file, a directory, or a path with `*`, `?`, `[...]` and `**`; several of them
            separated by commas; `~` is the home directory.
        field: with the text, in JSON and TFRecords.

    Raises:
        UserError: if nothing matches, or no file that does can be used.
    """
    result = file_patterns.match_files(files, SUFFIXES[kind])
    if not result.paths and set(result.problems.values()) <= {file_patterns.NO_FILE}:
        suffixes = ", ".join(SUFFIXES[kind])
        raise UserError(
            f"no file matches {printable_path(files)!r} (looked from {os.getcwd()}; in a directory: "
            f"{suffixes}){_others(result)}"
        )
    verdicts = _inspect_all(result.paths, kind, field)
    problems = {**result.problems, **{p: v.problem for p, v in verdicts.items() if v.problem}}
    left_out = tuple(f"{printable_path(path)} {problems[path]}" for path in sorted(problems))
    good = tuple(
        SourceFile(**vars(verdict), name=path)
        for path, verdict in verdicts.items()
        if not verdict.problem
    )
    if not good:
        first = "; ".join(left_out[:_NAMED])
        more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        raise UserError(
            f"no file that matches {printable_path(files)!r} can be used: {first}{more}"
        )
    runs = [
        f"the run directory {printable_path(run)} is not read" for run in sorted(set(result.runs))
    ]
    remarks = [_others(result).strip(" ;"), *_first_of(runs, indent=""), cache_note() or ""]
    return SourceFiles(good, left_out, tuple(line for line in remarks if line))


def _others(result: MatchedFiles) -> str:
    """Returns what to say about files of other kinds, or nothing."""
    if not result.others:
        return ""
    count, first = len(result.others), printable_path(sorted(result.others)[0])
    what = f"{count} files of other kinds are" if count > 1 else "1 file of another kind is"
    return f"; {what} not read ({first}{', ...' if count > 1 else ''}); name what is to be read"


def _inspect_all(paths: list[str], kind: str, field: str) -> dict[str, FileInspection]:
    """Returns the verdict on each file, from the cache or by reading it."""
    meter, verdicts = ByteCounter(), dict[str, FileInspection]()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        futures = {p: pool.submit(_load_or_inspect, p, kind, field, meter) for p in paths}
        waiting, started = set(futures.values()), time.monotonic()
        patience = _FIRST_WORD
        while waiting:
            _, waiting = concurrent.futures.wait(waiting, patience)
            if waiting and _report is not None:
                gone = time.monotonic() - started
                _report(
                    f"reading the files to their ends (once, then it is remembered): "
                    f"{meter.bytes / 1e9:.2f} GB in {gone:.0f} s, "
                    f"{len(paths) - len(waiting)} of {len(paths)} files"
                )
                patience = _NEXT_WORD
        for path, future in futures.items():
            verdicts[path] = future.result()
    return verdicts


def _load_or_inspect(path: str, kind: str, field: str, meter: ByteCounter) -> FileInspection:
    with contextlib.suppress(Exception):  # What cannot be asked cannot be read either.
        if known := load_inspection(path, file_reader.stamp(path), kind, field):
            return known
    verdict = inspect_file(path, kind, field, meter)
    save_inspection(path, verdict, kind, field)
    return verdict
