"""Where data that were worked out once are kept: `~/.cache/moe_jax`, or a temporary directory."""

import functools
import os
import stat
import tempfile
from pathlib import Path


def cache_directory(kind: str) -> Path:
    """Returns a directory that exists and can be written to.

    Args:
        kind: the name of a directory in the cache, such as `files`.
    """
    directory = _root(_wanted())[0] / kind
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def cache_note() -> str | None:
    """Returns one line that says where the cache is, None if it is in its usual place."""
    return _root(_wanted())[1]


def _wanted() -> str:
    return os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")


@functools.cache
def _root(wanted: str) -> tuple[Path, str | None]:
    """Returns the directory of all kinds, and a line about it if it is not the one wanted."""
    usual = Path(wanted) / "moe_jax"
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
            f"cannot write to {usual} ({reason}): what is worked out about the files is kept in "
            f"{other}; XDG_CACHE_HOME names another directory"
        )


def _temporary() -> Path:
    """Returns a temporary directory that no other user can write to."""
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
