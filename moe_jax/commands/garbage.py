"""No search for garbage while a process starts.

Imports and traces make millions of objects and next to no garbage. Python looks for it again and
again, which takes a fifth of the time of importing TensorFlow and a tenth of that of a trace.
"""

import gc


def put_off() -> None:
    """Puts off the search for reference cycles until `resume` is called."""
    gc.disable()


def resume(*, collect: bool = False) -> None:
    """Ends `put_off`, if it was called; what there is by now is never searched again.

    Args:
        collect: search once before: what was read from a checkpoint and is not needed any more may
            hold much memory.
    """
    if not gc.isenabled():
        if collect:
            gc.collect()
        gc.freeze()
        gc.enable()
