"""Available memory of this machine, or of the container of this process."""

from collections.abc import Iterator
from pathlib import Path

_MEMINFO, _CGROUPS, _CGROUP_ROOT = "proc/meminfo", "proc/self/cgroup", "sys/fs/cgroup"


def available_bytes(root: Path = Path("/")) -> int | None:
    """Returns the bytes that can still be allocated, including swap; None if unknown.

    This is the minimum of the available memory of the machine and of what the limits of the
    process's control groups (version 1 and 2) leave, which containers and Slurm set.

    Args:
        root: root of the file system.
    """
    machine = _meminfo(root)
    if machine is None:
        return None
    memory, swap = machine
    left = [memory + swap]
    for directory, names in _groups(root):
        limit = _number(directory / names[0])
        used = _number(directory / names[1])
        if limit is not None and used is not None:
            # The page cache can be reclaimed.
            cache = _field(directory / "memory.stat", names[2]) or 0
            left.append(max(limit - used + cache, 0) + swap)
    return min(left)


def _meminfo(root: Path) -> tuple[int, int] | None:
    """Returns the available bytes of memory, and those of swap."""
    memory = _field(root / _MEMINFO, "MemAvailable:")
    if memory is None:
        return None
    return memory * 1024, (_field(root / _MEMINFO, "SwapFree:") or 0) * 1024


def _groups(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Yields the directories of the process's control groups, with the names of their files."""
    try:
        lines = (root / _CGROUPS).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, names = "", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = "memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        base = root / _CGROUP_ROOT / mount
        # In a container the path may be that of the host: missing directories are ignored.
        for directory in (base / path.strip("/"), *(base / path.strip("/")).parents):
            if directory.is_relative_to(base):
                yield directory, names


def _number(path: Path) -> int | None:
    """Returns the number in a file; None if there is no file, or for "max"."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _field(path: Path, name: str) -> int | None:
    """Returns the number after a name at the start of a line of a file; None if not found."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return None
