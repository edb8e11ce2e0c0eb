"""Runs of `moe-jax train` on a model of some thousand parameters, to do things to.

Used by the tests of this folder and by `scripts/faults.py`.
"""

import dataclasses
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

STEPS, EVERY = 12, 2
GIN = f"""
import faults_inside
include 'runs/quickstart.gin'
STEPS = {STEPS}
Model.num_layers = 2
Model.d_model = 16
Model.d_ff = 32
Model.num_heads = 2
Model.head_dim = 8
Data.batch_size = 8
Data.sequence_length = 32
Data.eval_batches = 1
AdamW.learning_rate = @InverseSquareRoot()
InverseSquareRoot.scale = 0.1
Train.log_every = 1
Train.eval_every = 0
Checkpoints.every = {EVERY}
Sampling.max_new_tokens = 1
"""
# No run takes longer on a busy machine; one that does is killed and fails its test.
PATIENCE = 150.0
_INSIDE = Path(__file__).parent / "inside"


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        directory: its run directory.
        code: its exit code; negative for a signal that it did not handle.
        out: what it printed.
        err: what it printed to standard error.
    """

    directory: Path
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The line that says what happened: the last error, or the news among the output."""
        if self.err.strip():
            return self.err.strip().splitlines()[-1]
        words = "Stopped and saved|damaged|skipped"
        news = [line for line in self.out.splitlines() if re.search(words, line)]
        return " ".join(news) or "-"

    @property
    def went_on_from(self) -> int | None:
        """The step that it started from, None for a run from the beginning."""
        found = re.findall(r"oing on from (?:step )?(\d+)", self.out + self.err)
        return int(found[-1]) if found else None


class Running:
    """A process that runs."""

    def __init__(self, directory: Path, command: list[str], environment: dict[str, str]):
        self.directory = directory
        # Files and not pipes, which would stop a process that prints much.
        self._files = [Path(f"{directory}.{name}") for name in ("out", "err")]
        with self._files[0].open("w") as out, self._files[1].open("w") as err:
            self.process = subprocess.Popen(command, env=environment, stdout=out, stderr=err)
        self._deadline = time.monotonic() + PATIENCE

    def wait_for(self, condition: Callable[[], bool], pause: float = 0.02) -> None:
        """Waits until something is so.

        Raises:
            AssertionError: if the process ends before, or it takes too long.
        """
        while not condition():
            if self.process.poll() is not None or time.monotonic() > self._deadline:
                raise AssertionError(f"it did not come so far: {self.end()}")
            time.sleep(pause)

    def wait_for_step(self, step: int) -> None:
        """Waits until the record has a step."""
        self.wait_for(lambda: max(losses(self.directory), default=0) >= step)

    def end(self) -> Ended:
        """Waits until it ends by itself; kills it when that takes too long."""
        try:
            self.process.wait(max(self._deadline - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        out, err = (path.read_text() for path in self._files)
        return Ended(self.directory, self.process.returncode, out, err)

    def signal(self, number: int) -> Ended:
        """Sends a signal and waits for the end."""
        self.process.send_signal(number)
        return self.end()


class Home:
    """A directory with a configuration, a text, and runs."""

    def __init__(self, directory: Path):
        self.directory = directory
        chapters = (f"Chapter {i} tells of whale number {i * 7}." for i in range(1500))
        (directory / "book.txt").write_text("\n".join(chapters))
        task = f"TASK = 'text:{directory}/book.txt'\n"
        (directory / "tiny.gin").write_text(GIN + task)

    def start(self, name: str, *arguments: str, fault: str = "", **variables: str) -> Running:
        """Starts `moe-jax train` in the run directory of a name.

        Args:
            name: of the run; a path is taken as it is.
            arguments: more of them.
            fault: from inside, see `inside/faults_inside.py`.
            variables: of the environment.
        """
        directory = self.directory / name
        command = [sys.executable, "-m", "moe_jax.cli", "train", *arguments]
        command += [f"--gin_file={self.directory / 'tiny.gin'}", f"--output_dir={directory}"]
        path = os.pathsep.join(filter(None, [str(_INSIDE), os.environ.get("PYTHONPATH")]))
        # Compiled programs are kept for the next run.
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": path,
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_COMPILATION_CACHE_DIR": str(self.directory / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "MOE_JAX_METADATA_URL": "",
            "MOE_JAX_TEST_FAULT": fault,
            **variables,
        }
        return Running(directory, command, environment)

    def run(self, name: str, *arguments: str, **more: str) -> Ended:
        """Runs `moe-jax train` to its end."""
        return self.start(name, *arguments, **more).end()

    @functools.cached_property
    def reference(self) -> Ended:
        """The run that nothing happens to."""
        ended = self.run("reference")
        assert ended.code == 0, ended
        return ended

    @functools.cached_property
    def stopped(self) -> Ended:
        """A run that got a SIGTERM after some checkpoints; to be copied."""
        assert self.reference
        running = self.start("stopped", fault="slow:0.3")
        running.wait_for_step(7)
        return running.signal(signal.SIGTERM)

    def copy_of_stopped(self, name: str) -> Path:
        """Copies the stopped run."""
        return Path(shutil.copytree(self.stopped.directory, self.directory / name))

    def same_end(self, directory: Path) -> bool:
        """Returns whether a run has every loss of the reference, to the last digit."""
        whole = self.reference.directory
        return losses(directory) == losses(whole) and evaluation(directory) == evaluation(whole)


def records(directory: Path, kind: str) -> list[dict]:
    """Returns the records of a run; a last line that was cut off is none."""
    path = directory / "metrics.jsonl"
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["kind"] == kind:
            found.append(record)
    return found


def losses(directory: Path) -> dict[int, float]:
    """Returns the training loss by step."""
    return {record["step"]: record["loss"] for record in records(directory, "train")}


def evaluation(directory: Path) -> dict[str, float]:
    """Returns the last evaluation, empty if there is none."""
    return next(iter(records(directory, "eval")[-1:]), {})


def saved(directory: Path) -> list[int]:
    """Returns the complete checkpoints."""
    folder = directory / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    return sorted(int(name) for name in names if name.isdigit())


def saving(directory: Path) -> list[int]:
    """Returns the checkpoints that are being written."""
    folder = directory / "checkpoints"
    names = [path.name for path in folder.glob("*.orbax-checkpoint-tmp*")]
    return sorted(int(name.partition(".")[0]) for name in names)
