"""Faults of disks: damaged files, full disks, missing directories."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from cases import SLOW, Case, again, case_of
from harness import EVERY, Home
from on_disk import losses, saved


def _damaged(home: Home, name: str, damage: Callable[[Path], None]) -> Case:
    """Damages the latest checkpoint of a copy: the fault is in the run that finds it so."""
    directory = home.copy_of_stopped(name)
    reached, steps = max(losses(directory)), saved(directory)
    folder = directory / "checkpoints" / str(steps[-1])
    damage(max((path for path in folder.rglob("*") if path.is_file()), key=_size_and_name))
    ended = home.run(name)
    return case_of(home, ended, reached, steps[-2], ended)


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
            return again(home, running.end())
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(1 << 12))
        ended = running.end()
        (disk / "ballast").unlink()
        return again(home, ended)


def vanished(home: Home) -> Case:
    """The run directory goes away during training, and comes back."""
    assert home.reference
    running = home.start("moved", fault=SLOW)
    running.wait_for(lambda: max(saved(running.directory), default=0) >= 2 * EVERY)
    elsewhere = running.directory.with_name("elsewhere")
    running.directory.rename(elsewhere)
    ended = running.end()
    shutil.rmtree(running.directory, ignore_errors=True)
    elsewhere.rename(running.directory)
    return again(home, ended)


DISK_CASES = [flipped, truncated, deleted, full_disk, vanished]
