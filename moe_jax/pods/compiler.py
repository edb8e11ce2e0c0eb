"""Compilation of a training step for a TPU topology, in a child process.

The compiler dumps the optimised, scheduled program and its buffer assignment before it generates
code, which takes nearly all of its time. A quick compilation ends the child after the dump; a full
one waits for the code, after which the compiler has estimated cycles.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moe_jax import gin_imports
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.communication_bounds import CommunicationBound
from moe_jax.cost_model.topologies import Topology, compiler_environment
from moe_jax.errors import UserError

# The last of these files is written when the others are complete.
_PROGRAM, _LAST = ".after_optimizations.txt", ".debug_options"
_BUFFER_ASSIGNMENT = "after_optimizations-buffer-assignment.txt"
_LIVE_RANGES = "after_optimizations-live-range.txt"
_DUMPED = (_PROGRAM, _BUFFER_ASSIGNMENT, _LIVE_RANGES, _LAST)
_PROGRAM_WITH_CYCLES = "after_codegen.txt"
_POLL_SECONDS = 0.3
# Of HBM; kernels can exceed other memories, which a different remat policy does not change.
_HBM_EXCEEDED = re.compile("HbmOom|Ran out of memory (on|in memory space) hbm", re.IGNORECASE)

# Called with the current stage of a compilation.
ProgressCallback = Callable[[str], None]


def ignore_progress(stage: str) -> None:
    """Progress callback that does nothing."""


@dataclasses.dataclass(frozen=True)
class CompileJob:
    """A configuration and the topology to compile its step for.

    Attributes:
        topology: compilation target.
        source: the configuration.
        full: whether to wait for code generation.
        timeout: seconds after which the compiler is stopped.
    """

    topology: Topology
    source: ConfigSource
    full: bool = False
    timeout: float = 3600.0


@dataclasses.dataclass(frozen=True)
class CompilerOutput:
    """Output of the compiler for a step.

    Attributes:
        mesh: size of every mesh axis.
        coordinates: of the devices in the torus, in the order of the mesh.
        argument_bytes: see `LoweredStep`.
        bounds: see `LoweredStep`.
        program: the scheduled program, as HLO text; after a full compilation with the estimated
            cycles of its instructions. Empty if the compiler ran out of memory before it.
        buffer_assignment: text of the buffer assignment.
        live_ranges: text of the buffers' live ranges.
        exceeded: the compiler's error if the step does not fit into memory, otherwise None.
        warnings: of the compiler.
        seconds: wall time from the start of the process.
        full: whether code was generated.
    """

    mesh: dict[str, int]
    coordinates: tuple[tuple[int, ...], ...]
    argument_bytes: dict[str, int]
    bounds: tuple[CommunicationBound, ...]
    program: str
    buffer_assignment: str
    live_ranges: str
    exceeded: str | None
    warnings: tuple[str, ...]
    seconds: float
    full: bool


def compile_step(
    job: CompileJob, on_progress: ProgressCallback = ignore_progress
) -> CompilerOutput:
    """Compiles the training step that gin files describe for a topology.

    Args:
        job: configuration and target.
        on_progress: called with the current stage.

    Raises:
        UserError: for a mistake in the configuration, if the TPU compiler is missing, or if it
            fails for another reason than memory.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="moe_jax_compile_") as name:
        directory = Path(name)
        with _compiler_process(job, directory) as process:
            output = _wait(job, process, directory, start, on_progress)
        return dataclasses.replace(output, seconds=time.monotonic() - start)


@contextmanager
def _compiler_process(job: CompileJob, directory: Path) -> Iterator[subprocess.Popen]:
    """Starts the compiler process, and kills it on exit."""
    (directory / "job.json").write_text(
        json.dumps(
            {
                "topology": str(job.topology),
                "files": list(job.source.files),
                "bindings": list(job.source.bindings),
                "search_paths": list(job.source.search_paths),
            }
        )
    )
    flags = f"--xla_dump_to={directory / 'dump'} --xla_dump_hlo_as_text"
    # After the user's flags, so that they take precedence.
    given = os.environ.get("XLA_FLAGS", "")
    variables = {
        **os.environ,
        **compiler_environment(job.topology),
        "XLA_FLAGS": f"{given} {flags}".strip(),
        **gin_imports.as_environment(),
        # Keeps the partitioner's warnings, which are part of the output.
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }
    command = [sys.executable, "-m", "moe_jax.pods.compiler_process"]
    command += [str(directory / "job.json"), str(directory / "result.json")]
    with open(directory / "log", "w") as log:
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _wait(
    job: CompileJob,
    process: subprocess.Popen,
    directory: Path,
    start: float,
    on_progress: ProgressCallback,
) -> CompilerOutput:
    """Waits until the job's output is on disk, and reads it."""
    before: tuple[int, ...] = ()
    while process.poll() is None:
        sizes = _sizes(directory / "dump")
        is_lowered = (directory / "result.json").exists()
        stage = "optimising" if is_lowered else "tracing the step"
        on_progress("generating code" if job.full and all(sizes) else stage)
        # The compiler may rewrite a file after it has tried another schedule.
        if not job.full and all(sizes) and sizes == before:
            break
        before = sizes
        if time.monotonic() - start > job.timeout:
            raise UserError(
                f"the TPU compiler took more than {job.timeout:.0f} s and was stopped; last line "
                f"of its log: {_last_line(directory / 'log')}"
            )
        time.sleep(_POLL_SECONDS)
    return _read_output(job, directory)


def _sizes(dump: Path) -> tuple[int, ...]:
    """Returns the sizes of the dumped files, 0 for missing ones."""
    paths = (_dumped_file(dump, ending) for ending in _DUMPED)
    return tuple(path.stat().st_size if path else 0 for path in paths)


def _dumped_file(dump: Path, ending: str) -> Path | None:
    """Returns the last file of the step with this ending."""
    return max(dump.glob(f"*jit_step*{ending}"), default=None)


def _text(dump: Path, ending: str) -> str:
    path = _dumped_file(dump, ending)
    return "" if path is None else path.read_text(errors="replace")


def _read_output(job: CompileJob, directory: Path) -> CompilerOutput:
    result: dict[str, Any] = {"stage": "nothing"}
    if (directory / "result.json").exists():
        result = json.loads((directory / "result.json").read_text())
    stage, error, dump = result["stage"], str(result.get("error", "")), directory / "dump"
    exceeded = error if stage == "failed" and _HBM_EXCEEDED.search(error) else None
    complete = stage == "compiled" if job.full else all(_sizes(dump))
    if stage == "refused":
        raise UserError(error)
    if not complete and exceeded is None:
        message = " ".join(error.split())[:500] or _last_line(directory / "log")
        raise UserError(f"the TPU compiler failed: {message}")
    program = (_text(dump, _PROGRAM_WITH_CYCLES) if job.full else "") or _text(dump, _PROGRAM)
    with open(directory / "log", errors="replace") as log:
        warnings = tuple(_warnings(log))
    return CompilerOutput(
        mesh=result["mesh"],
        coordinates=tuple(map(tuple, result["coordinates"])),
        argument_bytes=result["argument_bytes"],
        bounds=tuple(
            CommunicationBound(**{**bound, "axes": tuple(bound["axes"])})
            for bound in result["bounds"]
        ),
        program=program,
        buffer_assignment=_text(dump, _BUFFER_ASSIGNMENT),
        live_ranges=_text(dump, _LIVE_RANGES),
        exceeded=exceeded,
        warnings=warnings,
        seconds=0.0,
        full=job.full,
    )


def _warnings(log: IO[str]) -> Iterator[str]:
    """Yields the distinct warnings about extra time or memory of the step."""
    seen = set()
    for line in log:
        found = re.search(r"\[SPMD\] (Involuntary full rematerialization.*)", line)
        if found and found[1] not in seen:
            seen.add(found[1])
            yield found[1]


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"
