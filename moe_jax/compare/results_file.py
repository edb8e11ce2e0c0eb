"""Read and write `results.jsonl`: the records of a study, one JSON object per line.

Each line has the `kind` and the `version` of its record and can be read by itself. Reading returns
the very records that were written, to the last digit. A line that a killed process has not
completed is left out, and is replaced by the next record.
"""

import itertools
import json
import os
from collections.abc import Iterable
from typing import Any

from etils import epath

from moe_jax import strict_json
from moe_jax.compare.json_values import decode, encode
from moe_jax.compare.records import LeakTest, Record, RunRecord, StepTimes, StudyPlan
from moe_jax.errors import UserError, nearest
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically
from moe_jax.training.run_directory.lock_file import exclusive_access

RESULTS_FILE = "results.jsonl"
VERSION = 1

_KINDS: dict[str, Any] = {cls.kind: cls for cls in (RunRecord, StepTimes, LeakTest, StudyPlan)}


def to_json(record: Record) -> dict[str, Any]:
    """Returns a record as plain JSON values, with its kind and version."""
    return {"kind": record.kind, "version": VERSION, **encode(record)}


def from_json(values: Any, where: str) -> Record:
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
    record: Record = decode(values, _KINDS[kind], where)
    _check(record, where)
    return record


def read_records(path: str | epath.Path) -> list[Record]:
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


def write_records(path: str | epath.Path, records: Iterable[Record]) -> None:
    """Writes a file of records, atomically.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomically(epath.Path(path), "".join(_line(record) for record in records))


def append_record(path: str | epath.Path, record: Record) -> None:
    """Appends a record to a file, which is created if it does not exist.

    The record is on disk when the function returns. Processes on several machines may append to
    one file if its file system can lock. A last line that was not completed is replaced.

    Raises:
        OSError: if it cannot be written.
    """
    path, line = epath.Path(path), _line(record)
    if is_remote(path):
        text = path.read_text() if path.exists() else ""
        path.write_text(text[: _complete(text.encode())] + line)
        return
    with exclusive_access(path.parent):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        with os.fdopen(descriptor, "r+b") as file:
            contents = file.read()
            end = _complete(contents)
            start = b"" if contents[:end].endswith(b"\n") or not end else b"\n"
            file.truncate(end)
            file.seek(end)
            file.write(start + line.encode())
            file.flush()
            os.fsync(file.fileno())


def _line(record: Record) -> str:
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


def _check(record: Record, where: str) -> None:
    """Checks what annotations do not say.

    Raises:
        UserError: for a curve or counts that no run has.
    """
    if not isinstance(record, RunRecord):
        return
    curve = record.curve
    if not len(curve.steps) == len(curve.loss) == len(curve.causal_loss):
        raise UserError(f"{where}: the curve needs as many losses as steps")
    if any(after <= before for before, after in itertools.pairwise(curve.steps)):
        raise UserError(f"{where}: the steps of the curve must increase")
    for name in ("planned_steps", "tokens_per_step"):
        if getattr(record, name) < 1:
            raise UserError(f"{where}: {name} must be at least 1, not {getattr(record, name)}")
