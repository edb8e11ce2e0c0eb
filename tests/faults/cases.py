"""The faults: each does one thing to a run, and runs the same command again."""

import contextlib
import dataclasses
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import EVERY, Ended, Home, losses, saved, saving
from metadata_server import MetadataServer

from moe_jax.training.preemption import PREEMPTED

SLOW = "slow:0.3"


@dataclasses.dataclass(frozen=True)
class Case:
    """What a fault did.

    Attributes:
        ended: the process that had the fault.
        reached: the last step of its record.
        saved: the last complete checkpoint that it left; 0 for none.
        resumed: the same command, run again without the fault.
        same: whether the run then has every loss of one without a fault, to the last digit.
    """

    ended: Ended
    reached: int
    saved: int
    resumed: Ended
    same: bool


def _again(home: Home, ended: Ended) -> Case:
    """Runs the same command again."""
    directory = ended.directory
    reached, kept = max(losses(directory), default=0), max(saved(directory), default=0)
    resumed = home.run(str(directory))
    return Case(ended, reached, kept, resumed, home.same_end(directory))


def sigterm(home: Home) -> Case:
    """SIGTERM during training."""
    directory = home.copy_of_stopped("sigterm")
    return _again(home, dataclasses.replace(home.stopped, directory=directory))


def sigint(home: Home) -> Case:
    """Ctrl-C during training."""
    assert home.reference
    running = home.start("sigint", fault=SLOW)
    running.wait_for_step(5)
    return _again(home, running.signal(signal.SIGINT))


def preempted(home: Home) -> Case:
    """The cloud's notice of pre-emption."""
    assert home.reference
    with contextlib.closing(MetadataServer()) as server:
        running = home.start("preempted", fault=SLOW, MOE_JAX_METADATA_URL=server.url)
        running.wait_for_step(5)
        # Not asked: then there is nobody to wait for.
        if server.waiting[PREEMPTED].is_set():
            server.set(PREEMPTED, "TRUE")
        return _again(home, running.end())


def killed(home: Home) -> Case:
    """kill -9 at a random moment."""
    assert home.reference
    running = home.start("killed", fault=SLOW)
    running.wait_for_step(4)
    time.sleep(random.uniform(0, 1.5))
    return _again(home, running.signal(signal.SIGKILL))


def killed_in_save(home: Home) -> Case:
    """kill -9 while a checkpoint is being written."""
    assert home.reference
    running = home.start("killed_in_save", fault=SLOW)
    running.wait_for(lambda: max(saving(running.directory), default=0) >= 2 * EVERY, pause=0.001)
    ended = running.signal(signal.SIGKILL)
    assert saving(running.directory), "the kill came after the save"
    return _again(home, ended)


def _damaged(home: Home, name: str, damage: Callable[[Path], None]) -> Case:
    """Damages the latest checkpoint of a copy: the fault is in the run that finds it so."""
    directory = home.copy_of_stopped(name)
    reached, steps = max(losses(directory)), saved(directory)
    folder = directory / "checkpoints" / str(steps[-1])
    damage(max((path for path in folder.rglob("*") if path.is_file()), key=_size_and_name))
    ended = home.run(name)
    return Case(ended, reached, steps[-2], ended, home.same_end(directory))


def _size_and_name(path: Path) -> tuple[int, str]:
    return path.stat().st_size, str(path)


def flipped(home: Home) -> Case:
    """Flipped bytes in the largest file of the latest checkpoint."""

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 16] = bytes(byte ^ 0xFF for byte in data[middle : middle + 16])
        path.write_bytes(data)

    return _damaged(home, "flipped", flip)


def truncated(home: Home) -> Case:
    """The largest file of the latest checkpoint cut to half."""
    return _damaged(home, "cut", lambda path: os.truncate(path, path.stat().st_size // 2))


def deleted(home: Home) -> Case:
    """The largest file of the latest checkpoint deleted."""
    return _damaged(home, "deleted", Path.unlink)


@contextlib.contextmanager
def _small_disk(directory: Path) -> Iterator[Path | None]:
    """Mounts a disk of 64 MB; gives None where that is not allowed."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(directory)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield directory if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", str(directory)], check=False)


def full_disk(home: Home) -> Case:
    """A disk that is full in the middle of training, and then has room again."""
    assert home.reference
    with _small_disk(home.directory / "disk") as disk:
        running = home.start("disk/run" if disk else "full", fault=SLOW)
        running.wait_for(lambda: max(saved(running.directory), default=0) >= 2 * EVERY)
        if disk is None:
            # As a disk without room, but for this process only: no file can grow.
            resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (0, 0))
            return _again(home, running.end())
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))
        ended = running.end()
        (disk / "ballast").unlink()
        return _again(home, ended)


def vanished(home: Home) -> Case:
    """The run directory goes away during training, and comes back."""
    assert home.reference
    running = home.start("vanished", fault=SLOW)
    running.wait_for(lambda: max(saved(running.directory), default=0) >= 2 * EVERY)
    elsewhere = running.directory.with_name("elsewhere")
    running.directory.rename(elsewhere)
    ended = running.end()
    shutil.rmtree(running.directory, ignore_errors=True)
    elsewhere.rename(running.directory)
    return _again(home, ended)


def source_fails(home: Home) -> Case:
    """The training data cannot be read any more."""
    assert home.reference
    return _again(home, home.run("source_fails", fault="slow:0.1,fail:8"))


def source_hangs(home: Home) -> Case:
    """The training data do not come any more."""
    assert home.reference
    limits = ["--gin.Watchdog.timeout=4", "--gin.Watchdog.pause_timeout=100"]
    ended = home.run("source_hangs", *limits, fault="slow:0.1,hang:8")
    return _again(home, ended)


def spike(home: Home) -> Case:
    """One batch whose loss is not a number."""
    assert home.reference
    ended = home.run("spike", fault="spike:6")
    reached, kept = max(losses(ended.directory), default=0), max(saved(ended.directory), default=0)
    return Case(ended, reached, kept, ended, home.same_end(ended.directory))


def diverged(home: Home) -> Case:
    """A loss that is not a number from a step on."""
    assert home.reference
    return _again(home, home.run("diverged", "--gin.STEPS=200", fault="spike:6-1000"))


CASES: list[Callable[[Home], Case]] = [
    sigterm,
    sigint,
    preempted,
    killed,
    killed_in_save,
    flipped,
    truncated,
    deleted,
    full_disk,
    vanished,
    source_fails,
    source_hangs,
    spike,
    diverged,
]
