"""Write files atomically: a concurrent reader sees either the old or the new contents."""

import os
import uuid

from etils import epath


def is_remote(path: epath.Path) -> bool:
    """Returns True for a path in an object store, where every write is atomic by itself."""
    return "://" in str(path)


def write_atomically(path: epath.Path, text: str) -> None:
    """Replaces the contents of a file; neither a reader nor a crash ever sees a part of it.

    Raises:
        OSError: if the file cannot be written; its previous contents are kept.
    """
    if is_remote(path):
        path.write_text(text)
        return
    temporary = path.parent / f".{path.name}-{uuid.uuid4().hex[:8]}"
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
