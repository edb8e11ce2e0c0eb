"""Deferral of Python's garbage collection during the start of a process.

Imports and tracing create millions of objects and almost no garbage. Garbage collection would take
a fifth of the time of importing TensorFlow and a tenth of the time of tracing.
"""

import gc

_is_deferred = False


def defer() -> None:
    """Disables the cyclic garbage collector until `resume` is called."""
    global _is_deferred
    _is_deferred = True
    gc.disable()


def resume(*, collect: bool = False) -> None:
    """Enables garbage collection after `defer`, and excludes all existing objects from it.

    Args:
        collect: collect once before; restoring a checkpoint can leave large reference cycles.
    """
    global _is_deferred
    if _is_deferred:
        _is_deferred = False
        if collect:
            gc.collect()
        gc.freeze()
        gc.enable()
