"""Read and write `results.jsonl`: the records of a study, one JSON object per line.

Each line has the `kind` and the `version` of its record and can be read by itself. Reading returns
the very records that were written, to the last digit. A line that a killed process has not
completed is left out, and is replaced by the next record.
"""

import errno
import fcntl
import io
import itertools
import json
import math
import os
import time
from collections.abc import Iterable
from typing import Any

from etils import epath

from moe_jax import strict_json
from moe_jax.compare.json_values import decode, encode
from moe_jax.compare.records import LeakTest, RunRecord, StepTimes, StudyPlan
from moe_jax.compare.task_records import AnyRecord, FinetunedRun, FinetuningPlan, TaskBaseline
from moe_jax.errors import UserError, nearest
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically

RESULTS_FILE = "results.jsonl"
VERSION = 1
# Time limit for locking the file.
_LOCK_SECONDS = 60.0

_CLASSES = (RunRecord, StepTimes, LeakTest, StudyPlan, FinetunedRun, TaskBaseline, FinetuningPlan)
_KINDS: dict[str, Any] = {cls.kind: cls for cls in _CLASSES}


def to_json(record: AnyRecord) -> dict[str, Any]:
    """Returns a record as plain JSON values, with its kind and version."""
    return {"kind": record.kind, "version": VERSION, **encode(record)}


def from_json(values: Any, where: str) -> AnyRecord:
    """Returns the record of a JSON object.

    Args:
        values: what `to_json` returns; a stranger may have written it.
        where: names the line in messages, such as `results.jsonl, line 3`.

    Raises:
        UserError: for another kind or version, and for values of the wrong type; in one line.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where} is not a JSON object")
    kind, version = values.get("kind"), values.get("version")
    if not isinstance(kind, str) or kind not in _KINDS:
        hint = nearest(kind, _KINDS) if isinstance(kind, str) else ""
        raise UserError(
            f"{where}: the kind of a record is one of {', '.join(_KINDS)}, not {kind!r}.{hint}"
        )
    if version != VERSION:
        raise UserError(
            f"{where} is of version {version!r} of the format; this program reads version "
            f"{VERSION}: use the version of moe-jax that wrote it"
        )
    values = {name: value for name, value in values.items() if name not in ("kind", "version")}
    record: AnyRecord = decode(values, _KINDS[kind], where)
    _check(record, where)
    return record


def read_records(path: str | epath.Path) -> list[AnyRecord]:
    """Returns the records of a file, in order.

    Raises:
        UserError: if the file cannot be read, and for the first line that is not a record, with
            its number.
    """
    path = epath.Path(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a file of records: it is not UTF-8 text") from None
    records = []
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        try:
            values = _parse(line)
        except ValueError as error:
            if number == len(lines):  # A killed process did not complete it.
                break
            raise UserError(f"{where} is not JSON: {error}") from None
        if line.strip():
            records.append(from_json(values, where))
    return records


def write_records(path: str | epath.Path, records: Iterable[AnyRecord]) -> None:
    """Writes a file of records, atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomically(epath.Path(path), "".join(_line(record) for record in records))


def append_record(path: str | epath.Path, record: AnyRecord) -> int:
    """Appends a record to a file, which is created if it does not exist.

    The record is on disk when the function returns. Processes on several machines may append to
    one file if its file system can lock files (`lockf`, which NFS can). In an object store only one
    process may append at a time: a file there can only be written anew, without what another
    process has appended in between. A last line that was not completed is replaced.

    Returns:
        the size of the line, bytes.

    Raises:
        OSError: if it cannot be written, or another process keeps it locked; the file is as it was
            then.
    """
    path, line = epath.Path(path), _line(record)
    if is_remote(path):
        text = path.read_text() if path.exists() else ""
        path.write_text(text[: _complete(text.encode())] + line)
        return len(line)
    with open(_open_locked(str(path)), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        start, end = b"", size
        if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
            contents = os.pread(file.fileno(), size, 0)
            end = _complete(contents)
            start = b"" if contents[:end].endswith(b"\n") or not end else b"\n"
            file.truncate(end)
            file.seek(end)
        try:
            _write(file, start + line.encode())
        except OSError:
            file.truncate(end)
            raise
        os.fsync(file.fileno())
    return len(line)


def _open_locked(path: str) -> int:
    """Opens a file, which is created if it does not exist, and locks it until it is closed.

    Raises:
        OSError: if it cannot be opened, or another process keeps it locked.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _lock(descriptor) and _is_at(descriptor, path):
                return descriptor
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps it locked", path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        time.sleep(0.01)


def _lock(descriptor: int) -> bool:
    """Locks a file; returns False if another process has locked it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some file systems cannot lock; there one process writes at a time.
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _is_at(descriptor: int, path: str) -> bool:
    """Returns False if a file was replaced by another since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write(file: io.FileIO, contents: bytes) -> None:
    while contents:
        contents = contents[file.write(contents) :]


def _line(record: AnyRecord) -> str:
    return strict_json.dumps(to_json(record)) + "\n"


def _complete(contents: bytes) -> int:
    """Returns the length of the contents without a last line that was not completed."""
    end = contents.rfind(b"\n") + 1
    try:
        # A file that was edited may have a complete last line without its end.
        return len(contents) if _parse(contents[end:].decode()) is not None else end
    except ValueError:
        return end


def _parse(line: str) -> Any:
    """Parses a line; returns None for an empty one.

    Raises:
        ValueError: if it is not JSON.
    """
    try:
        return json.loads(line) if line.strip() else None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check(record: AnyRecord, where: str) -> None:
    """Checks what annotations do not say.

    Raises:
        UserError: for a curve or counts that no run has.
    """
    if isinstance(record, StepTimes):
        for seconds in record.seconds:
            _check_seconds(seconds, f"{where}: seconds")
    if not isinstance(record, RunRecord):
        return
    if record.wall_seconds is not None:
        _check_seconds(record.wall_seconds, f"{where}: wall_seconds")
    curve = record.curve
    if not len(curve.steps) == len(curve.loss) == len(curve.causal_loss):
        raise UserError(f"{where}: the curve needs as many losses as steps")
    if any(after <= before for before, after in itertools.pairwise(curve.steps)):
        raise UserError(f"{where}: the steps of the curve must increase")
    if curve.steps and curve.steps[0] < 0:
        raise UserError(f"{where}: the steps of the curve must not be negative")
    for name in ("planned_steps", "tokens_per_step"):
        if getattr(record, name) < 1:
            raise UserError(f"{where}: {name} must be at least 1, not {getattr(record, name)}")
    for name in ("eval_tokens", "parameters", "active_parameters"):
        if getattr(record, name) < 0:
            raise UserError(f"{where}: {name} must not be negative, as {getattr(record, name)} is")


def _check_seconds(seconds: float, where: str) -> None:
    if not 0 < seconds < math.inf:
        raise UserError(f"{where} must be finite and above 0, not {seconds}")
