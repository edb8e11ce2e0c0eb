"""Runs of `moe-jax train` with a tiny model, for fault injection.

Used by the tests of this folder and by `scripts/faults.py`.
"""

import functools
import itertools
import shutil
import signal
from pathlib import Path

import tiny
from child import Ended, Running
from forked import Forked
from on_disk import evaluation, losses

STEPS, EVERY = 12, 2
GIN = f"""
import faults_inside
{tiny.RUN}
{tiny.STEADY}
STEPS = {STEPS}
Model.num_layers = 2
Checkpoints.every = {EVERY}
"""
_INSIDE = Path(__file__).parent / "inside"


class Home:
    """A directory with a configuration, a text, and runs."""

    def __init__(self, directory: Path):
        self.directory = directory
        self._starts = itertools.count()
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
        argv = ["train", "--allow_imports=faults_inside", *arguments]
        argv += [f"--gin_file={self.directory / 'tiny.gin'}", f"--output_dir={directory}"]
        own = {"MOE_JAX_METADATA_URL": "", "MOE_JAX_TEST_FAULT": fault, **variables}
        # Not beside the run: its disk may be full.
        log = self.directory / f"log_{next(self._starts)}_{directory.name}"
        return Running(directory, Forked(argv, log, own, [_INSIDE]))

    def run(self, name: str, *arguments: str, **more: str) -> Ended:
        """Runs `moe-jax train` to its end."""
        return self.start(name, *arguments, **more).end()

    @functools.cached_property
    def reference(self) -> Ended:
        """The run without a fault."""
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
        """Returns whether a run has the losses of the reference, to the last digit."""
        whole = self.reference.directory
        recorded = losses(directory)
        same = {step: losses(whole)[step] for step in recorded if step <= STEPS} == recorded
        return same and evaluation(directory) == evaluation(whole)

    def unrecorded(self, directory: Path) -> list[int]:
        """Returns the steps that the record of a run lacks."""
        return sorted(losses(self.reference.directory).keys() - losses(directory).keys())
