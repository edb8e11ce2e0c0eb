"""Suppression of what TensorFlow and other C++ libraries print."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

# Errors that these loggers report from their own threads are also raised as exceptions.
_LOGGERS = ("absl", "asyncio", "tensorboardX")


@contextlib.contextmanager
def suppress_library_output(debug: bool = False) -> Iterator[None]:
    """Discards what is written to standard error inside the context.

    The libraries write from C++, past Python's `sys.stderr`, so the file descriptor itself is
    redirected.

    Args:
        debug: discard nothing.
    """
    if debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
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
