"""The directory of a study: `results.jsonl`, `study.json`, the runs and their logs."""

import contextlib
import dataclasses
import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from moe_jax import gin_imports, strict_json
from moe_jax.compare.jobs import RUNS, Job
from moe_jax.compare.records import Record, RunRecord, StudyPlan
from moe_jax.compare.results_file import (
    RESULTS_FILE,
    append_record,
    read_records,
    to_json,
    write_records,
)
from moe_jax.compare.run_reader import read_run
from moe_jax.compare.task_records import AnyRecord, FinetuningPlan, TaskBaseline
from moe_jax.errors import UserError
from moe_jax.run_files import CHECKPOINTS, CONFIG_FILE, RUN_FILE
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically

STUDY_FILE = "study.json"
Plan = StudyPlan | FinetuningPlan


def absolute(path: str) -> epath.Path:
    """Returns a directory as an absolute path, unless it is remote."""
    directory = epath.Path(path).expanduser()
    return directory if is_remote(directory) else epath.Path(Path(directory).absolute())


def make_directory(path: epath.Path) -> None:
    """Makes an output directory, if it is not there.

    Raises:
        UserError: if it cannot be made, or is the directory of a run.
    """
    if runs := [name for name in (CONFIG_FILE, RUN_FILE, CHECKPOINTS) if (path / name).exists()]:
        raise UserError(
            f"--output_dir={path} is a run directory (it has a {runs[0]}): give one of its own to "
            "the study or the report"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot write to the output directory {path}: {error.strerror or error}"
        ) from None


@contextlib.contextmanager
def no_empty_directory(path: epath.Path) -> Iterator[None]:
    """Removes the directories that were made inside the context, if it fails and they are empty."""
    directory = Path(str(path))
    new = [] if is_remote(path) else [d for d in (directory, *directory.parents) if not d.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for made in new:
                made.rmdir()
        raise


class StudyDirectory:
    """The files of a study.

    Args:
        path: the directory; it is created.

    Attributes:
        path: the directory, absolute unless it is remote.
        given: the directory as it was given, for command lines that are recorded.

    Raises:
        UserError: if it cannot be written to.
    """

    def __init__(self, path: str):
        self.given = epath.Path(path)
        self.path = absolute(path)
        self._read: tuple[Any, list[AnyRecord]] = (None, [])
        make_directory(self.path)

    @property
    def results(self) -> epath.Path:
        """The path of `results.jsonl`."""
        return self.path / RESULTS_FILE

    def records(self) -> list[AnyRecord]:
        """Returns all records.

        Raises:
            UserError: if a line is not a record.
        """
        if (state := self._state()) is None:
            return []
        if state != self._read[0]:
            self._read = state, read_records(self.results)
        return list(self._read[1])

    def comparison_records(self) -> list[Record]:
        """Returns the records of a comparison."""
        others = TaskBaseline | FinetuningPlan
        return [record for record in self.records() if not isinstance(record, others)]

    def _state(self) -> tuple[int, ...] | None:
        """Returns what changes whenever `results.jsonl` is written; None if there is none."""
        try:
            if is_remote(self.results):
                remote = self.results.stat()
                return int(remote.length), int(remote.mtime)
            local = os.stat(self.results)
        except FileNotFoundError:
            return None
        return local.st_size, local.st_mtime_ns, local.st_ino

    def runs(self) -> dict[str, RunRecord]:
        """Returns the records of runs, by name; of several of the same name the last."""
        return {r.name: r for r in self.records() if isinstance(r, RunRecord)}

    def append(self, record: AnyRecord) -> None:
        """Appends a record, unless another process has recorded the same run.

        Raises:
            UserError: if it cannot be written.
        """
        if isinstance(record, RunRecord):
            known = self.runs().get(record.name)
            if known is not None and known.outcome == record.outcome:
                return
        known_records = self.records()
        before = self._read[0][0] if known_records else 0
        try:
            size = append_record(self.results, record)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UserError(f"cannot write {self.results}: {error.strerror or error}") from None
        after = self._state()
        if after is not None and after[0] == before + size:
            # No other process has written in between: what is known need not be read again.
            self._read = after, [*known_records, record]

    def append_plan(self, plan: Plan) -> None:
        """Appends a plan, unless it is the last one.

        Raises:
            UserError: if it cannot be written.
        """
        plans = [record for record in self.records() if isinstance(record, type(plan))]
        if plan not in plans[-1:]:
            self.append(plan)

    def read(self, job: Job) -> RunRecord | None:
        """Reads the run of a job; None if it has no evaluation yet."""
        directory = job.directory(self.path)
        needed = (CONFIG_FILE, RUN_FILE, METRICS_FILE)
        if not all((directory / name).exists() for name in needed):
            return None
        # Its configuration is the study's own, with what the user permits that to import.
        with gin_imports.allowing(gin_imports.permitted()):
            record = read_run(directory, job.arm, job.role, job.command(self.given))
        return dataclasses.replace(record, name=job.name, learning_rate=_rate(job, record))

    def log(self, job: Job) -> Path:
        """Returns the log file of a job: beside its run directory, or here if that is remote."""
        if is_remote(self.path):
            return Path(f"{job.name.replace('/', '-')}.log").absolute()
        return Path(str(self.path / RUNS / f"{job.name}.log"))

    def write_study(self, plan: Plan, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `study.json`: the plan, and what is known of each job."""
        _write_study(self.path, plan, jobs)


def _rate(job: Job, record: RunRecord) -> float | None:
    return record.learning_rate if job.learning_rate is None else job.learning_rate


def holds_study(path: epath.Path) -> bool:
    """Returns whether a directory has a study, rather than the records of a report on other runs.

    `study.json` of such a report has no jobs.
    """
    if not any((path / name).exists() for name in (RESULTS_FILE, STUDY_FILE)):
        return False
    try:
        return bool(json.loads((path / STUDY_FILE).read_text())["jobs"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return True


def keep_records(path: epath.Path, plan: StudyPlan, records: Sequence[AnyRecord]) -> None:
    """Writes the records of a report on runs, so that it can be made again without the runs."""
    write_records(path / RESULTS_FILE, [plan, *records])
    _write_study(path, plan, {})


def _write_study(path: epath.Path, plan: Plan, jobs: Mapping[str, Mapping[str, Any]]) -> None:
    text = strict_json.dumps({"plan": to_json(plan), "jobs": jobs}, indent=1)
    write_atomically(path / STUDY_FILE, text + "\n")
