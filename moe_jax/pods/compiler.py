"""Runs the TPU compiler in a child process and keeps what it writes about a training step.

The compiler writes the optimised and scheduled program and its buffers before it generates code,
which takes nearly all of its time. The quick answer is made of these, and the child is ended; the
full compilation waits for the code, whose cycles the compiler then knows.
"""

import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from moe_jax import gin_imports
from moe_jax.errors import UserError
from moe_jax.pods.bounds import Bound
from moe_jax.pods.topologies import Topology, environment

# The compiler writes the last of these when all that is needed is on disk.
_SCHEDULED, _LAST = ".after_optimizations.txt", ".debug_options"
_BUFFERS = "after_optimizations-buffer-assignment.txt"
_LIVE = "after_optimizations-live-range.txt"
_NEEDED = (_SCHEDULED, _BUFFERS, _LIVE, _LAST)
_GENERATED = "after_codegen.txt"
_PAUSE_SECONDS = 0.3
# Of HBM; kernels can exceed other memories, which nothing that is kept or not would mend.
_EXCEEDED = re.compile("HbmOom|Ran out of memory (on|in memory space) hbm", re.IGNORECASE)

# Is told what is being done.
Say = Callable[[str], None]


def say_nothing(what: str) -> None:
    """Tells nobody."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What to compile.

    Attributes:
        topology: chips and how they are connected.
        files: gin files.
        bindings: values over them.
        search_paths: where gin files are looked for.
        full: wait for the code.
        timeout: seconds after which the compiler is ended.
    """

    topology: Topology
    files: Sequence[str]
    bindings: Sequence[str]
    search_paths: Sequence[str] = ()
    full: bool = False
    timeout: float = 3600.0


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What the compiler says of a step.

    Attributes:
        mesh: size of every mesh axis.
        coordinates: of the chips in the torus, in the order of the mesh.
        argument_bytes: see `LoweredStep`.
        bounds: see `LoweredStep`.
        program: the scheduled program, as HLO text; after a full compilation with the estimated
            cycles of its instructions. Empty if the memory was exceeded before it was there.
        buffers: the compiler's assignment of buffers, as text.
        live: the compiler's live ranges of buffers, as text.
        exceeded: the compiler's error where the step does not fit the memory, otherwise None.
        warnings: what it warned of.
        seconds: that it took, from the start of the process.
        full: whether it went to the end.
    """

    mesh: dict[str, int]
    coordinates: tuple[tuple[int, ...], ...]
    argument_bytes: dict[str, int]
    bounds: tuple[Bound, ...]
    program: str
    buffers: str
    live: str
    exceeded: str | None
    warnings: tuple[str, ...]
    seconds: float
    full: bool


def compile_step(job: Job, say: Say = say_nothing) -> Compilation:
    """Compiles the training step that gin files describe for a topology.

    Args:
        job: what to compile.
        say: told what the compiler is at.

    Raises:
        UserError: for a mistake in the configuration, without the TPU compiler, or when it fails
            for another reason than memory.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="moe_jax_compile_") as name:
        directory = Path(name)
        with _child(job, directory) as process:
            found = _wait(job, process, directory, start, say)
        return dataclasses.replace(found, seconds=time.monotonic() - start)


@contextmanager
def _child(job: Job, directory: Path) -> Iterator[subprocess.Popen]:
    """Starts the process of the compiler, and ends it."""
    (directory / "job.json").write_text(
        json.dumps(
            {
                "topology": str(job.topology),
                "files": list(job.files),
                "bindings": list(job.bindings),
                "search_paths": list(job.search_paths),
            }
        )
    )
    flags = f"--xla_dump_to={directory / 'dump'} --xla_dump_hlo_as_text"
    # Set after the user's, so that they hold.
    given = os.environ.get("XLA_FLAGS", "")
    variables = {
        **os.environ,
        **environment(job.topology),
        "XLA_FLAGS": f"{given} {flags}".strip(),
        **gin_imports.as_environment(),
        # Warnings of the partitioner are read.
        "TF_CPP_MIN_LOG_LEVEL": "1",
    }
    command = [sys.executable, "-m", "moe_jax.pods.child"]
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
    job: Job, process: subprocess.Popen, directory: Path, start: float, say: Say
) -> Compilation:
    """Waits until what the job asks for is on disk."""
    before: tuple[int, ...] = ()
    while process.poll() is None:
        sizes = _sizes(directory / "dump")
        is_lowered = (directory / "result.json").exists()
        stage = "optimising" if is_lowered else "tracing the step"
        say("generating code" if job.full and all(sizes) else stage)
        # The compiler may write a file again, after it has tried another schedule.
        if not job.full and all(sizes) and sizes == before:
            break
        before = sizes
        if time.monotonic() - start > job.timeout:
            raise UserError(
                f"the TPU compiler took more than {job.timeout:.0f} s and was ended; its last "
                f"words: {_last_line(directory / 'log')}"
            )
        time.sleep(_PAUSE_SECONDS)
    return _read(job, directory)


def _sizes(dump: Path) -> tuple[int, ...]:
    """Returns the bytes of all that is needed, 0 for what is not there yet."""
    paths = (_found(dump, ending) for ending in _NEEDED)
    return tuple(path.stat().st_size if path else 0 for path in paths)


def _found(dump: Path, ending: str) -> Path | None:
    """Returns the file of the step with this ending; of several the last."""
    return max(dump.glob(f"*jit_step*{ending}"), default=None)


def _text(dump: Path, ending: str) -> str:
    path = _found(dump, ending)
    return "" if path is None else path.read_text(errors="replace")


def _read(job: Job, directory: Path) -> Compilation:
    result: dict[str, Any] = {"stage": "nothing"}
    if (directory / "result.json").exists():
        result = json.loads((directory / "result.json").read_text())
    stage, error, dump = result["stage"], str(result.get("error", "")), directory / "dump"
    exceeded = error if stage == "failed" and _EXCEEDED.search(error) else None
    complete = stage == "compiled" if job.full else all(_sizes(dump))
    if stage == "refused":
        raise UserError(error)
    if not complete and exceeded is None:
        said = " ".join(error.split())[:500] or _last_line(directory / "log")
        raise UserError(f"the TPU compiler failed: {said}")
    program = (_text(dump, _GENERATED) if job.full else "") or _text(dump, _SCHEDULED)
    with open(directory / "log", errors="replace") as log:
        warnings = tuple(_warnings(log))
    return Compilation(
        mesh=result["mesh"],
        coordinates=tuple(map(tuple, result["coordinates"])),
        argument_bytes=result["argument_bytes"],
        bounds=tuple(Bound(**{**b, "axes": tuple(b["axes"])}) for b in result["bounds"]),
        program=program,
        buffers=_text(dump, _BUFFERS),
        live=_text(dump, _LIVE),
        exceeded=exceeded,
        warnings=warnings,
        seconds=0.0,
        full=job.full,
    )


def _warnings(log: IO[str]) -> Iterator[str]:
    """Yields warnings that cost a step time or memory, each once."""
    seen = set()
    for line in log:
        found = re.search(r"\[SPMD\] (Involuntary full rematerialization.*)", line)
        if found and found[1] not in seen:
            seen.add(found[1])
            yield found[1]


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"
