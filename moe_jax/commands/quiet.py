"""Keeps the start-up chatter of TensorFlow and other C++ libraries off the terminal."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

# What they report as errors from threads of their own comes as an exception, too.
_LOGGERS = ("absl", "asyncio", "tensorboardX")


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
