"""Compiled programs are kept on disk, so that a second start does not compile again.

JAX's persistent compilation cache does the work; here it gets a place, and is kept small.

| run            | place                                                                         |
|----------------|-------------------------------------------------------------------------------|
| one process    | `moe_jax/compiled` in the user's cache directory (`XDG_CACHE_HOME`, `~/.cache`) |
| several        | `.compiled` beside the output directory, which all hosts can read              |
| any            | `--cache_dir=DIR`, local or gs://                                               |

Reading a compiled program is running it, so the place is never taken from a checkpoint's directory.
Programs for CPUs use the instructions of the CPU that they were compiled on: each kind of CPU has a
directory of its own in that place.
"""

import hashlib
import os
import platform
from collections.abc import Callable

from etils import epath

# Programs that compile faster than this are not worth a file, seconds.
MIN_COMPILE_SECONDS = 0.1
# Above this the programs that were not used for longest are deleted.
MAX_BYTES = 4 << 30


def enable(
    directory: str | None,
    *,
    output_dir: str | None = None,
    processes: int = 1,
    is_main: bool = True,
    warn: Callable[[str], None] = lambda line: None,
) -> epath.Path | None:
    """Lets JAX keep compiled programs, and returns where; None where there is no place for them.

    Nothing is changed if `JAX_COMPILATION_CACHE_DIR` says already where they are kept and no
    directory is given.

    Args:
        directory: where the user wants them; None for the places above.
        output_dir: of the run, if it writes one.
        processes: of the run.
        is_main: whether this process deletes what is too much.
        warn: told in one line why nothing can be kept.
    """
    import jax

    if directory is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return None
    place = _place(directory, output_dir, processes)
    if place is None:
        return None
    place = place / f"cpu-{cpu_kind()}"
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if "://" not in str(place) and not os.access(place, os.W_OK):
            raise PermissionError("it is not writable")
        if is_main:
            shrink(place, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or str(error)
        warn(
            f"compiled programs are not kept, every start compiles anew: {place}: {reason}; "
            "--cache_dir=DIR names another place, --no_cache does without one"
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return place


def disable() -> None:
    """Makes JAX compile everything anew, whatever the environment says."""
    import jax

    jax.config.update("jax_enable_compilation_cache", False)


def _place(directory: str | None, output_dir: str | None, processes: int) -> epath.Path | None:
    if directory is not None:
        return epath.Path(directory).expanduser()
    if processes > 1:
        # Only process 0 writes: a directory of each host's own would stay empty on the others.
        return None if output_dir is None else _parent(output_dir) / ".compiled"
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return epath.Path(home).expanduser() / "moe_jax" / "compiled"


def _parent(output_dir: str) -> epath.Path:
    path = epath.Path(output_dir).expanduser()
    return path.parent if "://" in output_dir else epath.Path(os.path.abspath(path)).parent


def cpu_kind() -> str:
    """Returns a short name for this machine's CPU and the instructions that it has."""
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
    """Deletes the files that were not used for longest until the rest has at most so many bytes."""
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
