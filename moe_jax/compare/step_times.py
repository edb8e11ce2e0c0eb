"""Step times of a study's arms, measured in one child process in turn."""

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_jax import gin_imports, strict_json
from moe_jax.compare.children import last_error, last_line
from moe_jax.compare.jobs import Job
from moe_jax.compare.records import Record, StepTimes
from moe_jax.errors import UserError

_POLL_SECONDS = 0.2


def are_missing(
    jobs: Sequence[Job], fingerprints: Mapping[str, str], records: Sequence[Record]
) -> bool:
    """Returns whether the arms have no times of one session for their present configurations.

    Times of arms are compared round by round, so that all arms are timed again if one is missing.

    Args:
        jobs: a run of each arm.
        fingerprints: those of their records, by arm.
        records: the records of the study.
    """
    times: dict[str, StepTimes] = {r.arm: r for r in records if isinstance(r, StepTimes)}
    sessions = {times[job.arm].session for job in jobs if job.arm in times}
    return len(sessions) > 1 or any(
        job.arm not in times or times[job.arm].fingerprint != fingerprints[job.arm] for job in jobs
    )


def measure_step_times(
    jobs: Sequence[Job],
    fingerprints: Mapping[str, str],
    rounds: int,
    say: Callable[[str], None] = lambda stage: None,
    variables: Mapping[str, str] | None = None,
) -> list[StepTimes]:
    """Times the training steps of several arms in turn, in a process of their own.

    Args:
        jobs: a run of each arm, whose configuration is timed.
        fingerprints: those of the arms' records, by arm.
        rounds: number of rounds, R.
        say: called with the current stage.
        variables: environment variables of the child process, such as its devices.

    Raises:
        UserError: if the process fails, with its last line of output.
    """
    job: dict[str, Any] = {
        "rounds": rounds,
        "arms": {
            job.arm: {
                "files": job.source.files,
                "bindings": job.source.bindings,
                "search_paths": job.source.search_paths,
            }
            for job in jobs
        },
    }
    with tempfile.TemporaryDirectory(prefix="moe_jax_timing_") as name:
        directory = Path(name)
        (directory / "job.json").write_text(strict_json.dumps(job))
        _run(directory, say, variables or {})
        path = directory / "result.json"
        result = json.loads(path.read_text()) if path.exists() else {}
        if "seconds" not in result:
            reason = result.get("error") or last_error(directory / "log")
            raise UserError(f"the steps of the arms could not be timed: {reason}")
    session = uuid.uuid4().hex
    return [
        StepTimes(arm, fingerprints[arm], tuple(seconds), result["device"], session)
        for arm, seconds in result["seconds"].items()
    ]


def _run(directory: Path, say: Callable[[str], None], variables: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "moe_jax.compare.timing_process"]
    command += [str(directory / "job.json"), str(directory / "result.json")]
    environment = {**os.environ, **variables, **gin_imports.as_environment()}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # Stages on standard output; on standard error libraries write, too.
    stages = directory / "stages"
    with open(stages, "w") as output, open(directory / "log", "w") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    with process:
        try:
            while process.poll() is None:
                say(last_line(stages))
                time.sleep(_POLL_SECONDS)
        finally:
            process.kill()
