"""Small files that others read while they are written: there is the old text or the new."""

import os
import uuid

from etils import epath


def is_remote(path: epath.Path) -> bool:
    """Returns whether a path is in an object store, where every write is whole by itself."""
    return "://" in str(path)


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a file so that no reader, and no crash, ever sees a part of it.

    Raises:
        OSError: if it cannot be written; what was there before is kept.
    """
    if is_remote(path):
        path.write_text(text)
        return
    own = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        own.write_text(text)
        os.replace(own, path)
    except BaseException:
        own.unlink(missing_ok=True)
        raise
