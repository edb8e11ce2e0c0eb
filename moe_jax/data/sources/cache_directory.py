"""The cache directory of derived data: `~/.cache/moe_jax`, or a temporary directory."""

import functools
import os
import stat
import tempfile
import uuid
from pathlib import Path


def cache_directory(kind: str) -> Path:
    """Returns a writable directory of the cache, created if it does not exist.

    Args:
        kind: name of the directory in the cache, such as `files`.
    """
    directory = _root(_cache_home())[0] / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def cache_note() -> str | None:
    """Returns a line about the cache's location, None for the default location."""
    return _root(_cache_home())[1]


def write_cache_file(path: Path, text: str) -> None:
    """Writes a file of the cache atomically; failures are ignored."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


@functools.cache
def _root(cache_home: str) -> tuple[Path, str | None]:
    """Returns the root of the cache, and a line about it if it is not the default."""
    usual = Path(cache_home) / "moe_jax"
    try:
        if not usual.is_absolute():
            raise OSError("there is no home directory")
        usual.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=usual):
            pass
        return usual, None
    except OSError as error:
        other = _temporary()
        reason = error.strerror or error
        return other, (
            f"cannot write to {usual} ({reason}): derived data are cached in "
            f"{other}; XDG_CACHE_HOME names another directory"
        )


def _temporary() -> Path:
    """Returns a temporary directory that only this user can write to."""
    path = Path(tempfile.gettempdir()) / f"moe_jax-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
        if private and found.st_uid == os.getuid() and os.access(path, os.W_OK):
            return path
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="moe_jax-"))
