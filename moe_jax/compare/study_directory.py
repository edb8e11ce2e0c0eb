"""The directory of a study: `results.jsonl`, `study.json`, the runs and their logs."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from moe_jax import strict_json
from moe_jax.compare.jobs import RUNS, Job
from moe_jax.compare.records import Record, RunRecord, StudyPlan
from moe_jax.compare.results_file import append_record, read_records, to_json
from moe_jax.compare.run_reader import read_run
from moe_jax.errors import UserError
from moe_jax.run_files import CONFIG_FILE, RUN_FILE
from moe_jax.training.metric_writers.jsonl_writer import METRICS_FILE
from moe_jax.training.run_directory.atomic_file import is_remote, write_atomically

RESULTS_FILE, STUDY_FILE = "results.jsonl", "study.json"


class StudyDirectory:
    """The files of a study.

    Args:
        path: the directory; it is created.

    Raises:
        UserError: if it cannot be written to.
    """

    def __init__(self, path: str):
        self.path = epath.Path(path).expanduser()
        if not is_remote(self.path):
            self.path = epath.Path(Path(path).expanduser().absolute())
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot write to the output directory {self.path}: {error.strerror or error}"
            ) from None

    @property
    def results(self) -> epath.Path:
        """The path of `results.jsonl`."""
        return self.path / RESULTS_FILE

    def records(self) -> list[Record]:
        """Returns all records.

        Raises:
            UserError: if a line is not a record.
        """
        return read_records(self.results) if self.results.exists() else []

    def runs(self) -> dict[str, RunRecord]:
        """Returns the records of runs, by name; of several of the same name the last."""
        return {r.name: r for r in self.records() if isinstance(r, RunRecord)}

    def append(self, record: Record) -> None:
        """Appends a record, unless another process has recorded the same run."""
        if isinstance(record, RunRecord):
            known = self.runs().get(record.name)
            if known is not None and known.outcome == record.outcome:
                return
        append_record(self.results, record)

    def read(self, job: Job) -> RunRecord | None:
        """Reads the run of a job; None if it has no evaluation yet."""
        directory = job.directory(self.path)
        needed = (CONFIG_FILE, RUN_FILE, METRICS_FILE)
        if not all((directory / name).exists() for name in needed):
            return None
        record = read_run(directory, job.arm, job.role, job.command(self.path))
        return dataclasses.replace(record, name=job.name, learning_rate=_rate(job, record))

    def log(self, job: Job) -> Path:
        """Returns the log file of a job: beside its run directory, or here if that is remote."""
        if is_remote(self.path):
            return Path(f"{job.name.replace('/', '-')}.log").absolute()
        return Path(str(self.path / RUNS / f"{job.name}.log"))

    def write_study(self, plan: StudyPlan, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `study.json`: the plan, and what is known of each job."""
        text = strict_json.dumps({"plan": to_json(plan), "jobs": jobs}, indent=1)
        write_atomically(self.path / STUDY_FILE, text + "\n")


def _rate(job: Job, record: RunRecord) -> float | None:
    return record.learning_rate if job.learning_rate is None else job.learning_rate
