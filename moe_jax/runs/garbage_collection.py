"""Garbage collection of Python, deferred while a process starts.

Imports and tracing make millions of objects and next to no garbage. Collections meanwhile take a
fifth of the time of importing TensorFlow and a tenth of that of tracing.
"""

import gc

_is_deferred = False


def defer() -> None:
    """Stops the search for reference cycles until `resume` is called."""
    global _is_deferred
    _is_deferred = True
    gc.disable()


def resume(*, collect: bool = False) -> None:
    """Starts garbage collection again after `defer`, without the objects that exist by now.

    Args:
        collect: collect once before, as restoring a checkpoint may leave much memory in cycles.
    """
    global _is_deferred
    if _is_deferred:
        _is_deferred = False
        if collect:
            gc.collect()
        gc.freeze()
        gc.enable()
