"""The location and the size of JAX's persistent compilation cache.

| run            | directory                                                                     |
|----------------|-------------------------------------------------------------------------------|
| one process    | `moe_jax/compiled` in the user's cache directory (`XDG_CACHE_HOME`, `~/.cache`) |
| several        | `.compiled` beside the output directory, which all hosts can read              |
| any            | `--cache_dir=DIR`, local or gs://                                               |

Reading a compiled program means running it, so the directory is never taken from a checkpoint.
Programs for CPUs use the instructions of the CPU that they were compiled on, so each kind of CPU
has a subdirectory.
"""

import hashlib
import os
import platform
from collections.abc import Callable

from etils import epath

# Programs that compile in fewer seconds are not cached.
MIN_COMPILE_SECONDS = 0.1
# Above this size the least recently used programs are deleted.
MAX_BYTES = 4 << 30


def enable(
    directory: str | None,
    *,
    output_dir: str | None = None,
    processes: int = 1,
    is_main: bool = True,
    warn: Callable[[str], None] = lambda line: None,
) -> epath.Path | None:
    """Enables the cache and returns its directory; None if it cannot be enabled.

    Nothing is changed if `JAX_COMPILATION_CACHE_DIR` is set and no directory is given.

    Args:
        directory: the directory chosen by the user; None for the default.
        output_dir: the output directory of the run, if it has one.
        processes: number of processes of the run.
        is_main: whether this process limits the size of the cache.
        warn: prints a line if nothing can be cached.
    """
    import jax

    if directory is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    location = _location(directory, output_dir, processes)
    if location is None:
        return None
    location = location / f"cpu-{cpu_kind()}"
    try:
        location.mkdir(parents=True, exist_ok=True, mode=0o700)
        if "://" not in str(location) and not os.access(location, os.W_OK):
            raise PermissionError("it is not writable")
        if is_main:
            shrink(location, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        warn(
            f"compiled programs are not kept, every start compiles anew: {location}: {reason}; "
            "--cache_dir=DIR names another place, --no_cache does without one"
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(location))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return location


def disable() -> None:
    """Disables the cache, also one that the environment enables."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def _location(directory: str | None, output_dir: str | None, processes: int) -> epath.Path | None:
    if directory is not None:
        return epath.Path(directory).expanduser()
    if processes > 1:
        # Only process 0 writes: a local directory would stay empty on the other hosts.
        return None if output_dir is None else _parent(output_dir) / ".compiled"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return epath.Path(home).expanduser() / "moe_jax" / "compiled"


def _parent(output_dir: str) -> epath.Path:
    path = epath.Path(output_dir).expanduser()
    return path.parent if "://" in output_dir else epath.Path(os.path.abspath(path)).parent


def cpu_kind() -> str:
    """Returns a short hash of this machine's CPU model and instructions."""
    text = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            lines = file.read().split("\n\n")[0].splitlines()
        wanted = ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
        text += "\n".join(line for line in lines if line.split("\t")[0] in wanted)
    except OSError:
        text += platform.processor()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def shrink(directory: epath.Path, max_bytes: int) -> None:
    """Deletes the least recently used files until at most `max_bytes` are left."""
    files = []
    for path in directory.iterdir():
        try:
            stat = path.stat()
            used = stat.mtime
            if "://" not in str(path):
                used = max(used, os.stat(path).st_atime)
            files.append((used, int(stat.length), path))
        except FileNotFoundError:  # Deleted by another run.
            continue
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files, key=lambda file: file[0]):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size
