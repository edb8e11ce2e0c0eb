"""Keeps the start-up chatter of TensorFlow and other C++ libraries off the terminal."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(debug: bool = False) -> Iterator[None]:
    """Drops what is written to standard error inside.

    The libraries write from C++, past Python's `sys.stderr`, so the file descriptor itself is
    redirected.

    Args:
        debug: drop nothing.
    """
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
