"""A training run that is killed: its process, what is on its disk, and when to kill it.

Part of `scripts/kill_resume.py`.
"""

import contextlib
import logging
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKPOINTS = "checkpoints"
PAUSE = 0.005
# Has the kernel end the program when the script ends (PR_SET_PDEATHSIG, SIGKILL): two must not
# write to one run. Not a `preexec_fn`: the script has threads of JAX.
_ASKS = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
_ENDS_WITH_PARENT = [sys.executable, "-c", _ASKS] if sys.platform == "linux" else []


class Run:
    """A training run in a directory, started as often as it takes."""

    def __init__(self, directory: Path, arguments: list[str]):
        self.directory = directory
        program = [sys.executable, "-m", "moe_jax.cli", "train", f"--output_dir={directory}"]
        self._command = [*_ENDS_WITH_PARENT, *program, *arguments]
        self._environment = dict(os.environ)
        self.started = self._since = 0.0

    def start(self) -> subprocess.Popen:
        """Starts or goes on."""
        self.started, self._since = time.monotonic(), time.time()
        with (
            self.directory.with_suffix(".out").open("w") as out,
            self.directory.with_suffix(".err").open("w") as err,
        ):
            return subprocess.Popen(self._command, env=self._environment, stdout=out, stderr=err)

    def reached(self) -> int:
        """Returns the last step of the record."""
        path = self.directory / "metrics.jsonl"
        text = path.read_text(errors="replace")[-100_000:] if path.exists() else ""
        return max(
            map(int, re.findall(r'^\{"step": (\d+), "kind": "train"', text, re.M)), default=0
        )

    def is_training(self) -> bool:
        """Returns whether this start has done a step."""
        path = self.directory / "metrics.jsonl"
        # Going on, it first cuts off what came after the checkpoint.
        touched = path.exists() and path.stat().st_mtime > self._since
        return touched and self.reached() > self.went_on_from()

    def went_on_from(self) -> int:
        """Returns the step that the last start went on from."""
        text = self.directory.with_suffix(".out").read_text()
        return max(map(int, re.findall(r"oing on from (?:step )?(\d+)", text)), default=0)

    def saved(self) -> list[int]:
        """Returns the complete checkpoints."""
        return sorted(int(name) for name in self._names() if name.isdigit())

    def saving(self) -> list[int]:
        """Returns the checkpoints that are being written, or were when the program was killed."""
        names = (name for name in self._names() if ".orbax-checkpoint-tmp" in name)
        return sorted(int(name.partition(".")[0]) for name in names)

    def _names(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return os.listdir(self.directory / CHECKPOINTS)
        return []

    def restored(self, step: int) -> dict[str, Any]:
        """Restores all arrays of a checkpoint, by name."""
        # For this process only: the accelerator belongs to the run.
        os.environ["JAX_PLATFORMS"] = "cpu"
        # Which would say of each item that it is not a whole checkpoint.
        logging.getLogger("absl").setLevel(logging.ERROR)
        import jax
        import numpy as np
        import orbax.checkpoint as ocp

        arrays = {}
        for item in ("variables", "optimizer"):
            path = self.directory.absolute() / CHECKPOINTS / str(step) / item
            with ocp.PyTreeCheckpointer() as checkpointer:
                tree = checkpointer.metadata(path).item_metadata.tree
                as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
                restored = checkpointer.restore(path, restore_args=as_numpy)
            for key, value in jax.tree.leaves_with_path(restored):
                arrays[f"{item}{jax.tree_util.keystr(key)}"] = np.asarray(value)
        return arrays


class Moment:
    """When to kill: after a step, in one of three ways; a function of its arguments.

    Attributes:
        kind: `random`, `save` or `start`.
        step: the step after which it comes; of no meaning for `start`.
        first_step_seconds: from the start to the first step, None before that.
    """

    def __init__(self, seed: int, number: int, kills: int, steps: int):
        chance = random.Random(f"{seed} {number}")
        self.kind = chance.choices(["random", "save", "start"], [7, 2, 1])[0]
        self.step = 1 + int((number + chance.random()) * (steps - 2) / kills)
        self.first_step_seconds: float | None = None
        self._part = chance.random()

    def wait(self, run: Run, process: subprocess.Popen, start_seconds: float) -> bool:
        """Waits for the moment; returns False if the run ended before.

        Args:
            run: the run.
            process: its process.
            start_seconds: what a start takes, as far as is known.
        """
        if self.kind == "start":
            time.sleep(self._part * start_seconds)
        elif not self._wait_for(process, run.is_training):
            return False
        else:
            since = self.first_step_seconds = time.monotonic() - run.started
            if not self._wait_for(process, lambda: run.reached() >= self.step):
                return False
            if self.kind == "save":
                return self._wait_for(process, lambda: bool(run.saving()))
            # Anywhere in a step, if the last ones tell how long one takes.
            steps = max(run.reached() - run.went_on_from(), 1)
            a_step = (time.monotonic() - run.started - since) / steps
            time.sleep(self._part * max(a_step, PAUSE))
        return process.poll() is None

    def _wait_for(self, process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
        while not condition():
            if process.poll() is not None:
                return False
            time.sleep(PAUSE)
        return True
