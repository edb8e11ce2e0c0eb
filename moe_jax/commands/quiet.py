"""Keeps the start-up chatter of TensorFlow and other C++ libraries off the terminal."""

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(debug: bool = False) -> Iterator[None]:
    """Holds back what is written to standard error inside; shows it if an exception leaves.

    The libraries write from C++, past Python's `sys.stderr`, so the file descriptor itself is
    redirected.

    Args:
        debug: hold back nothing.
    """
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("absl").setLevel(logging.ERROR)
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
