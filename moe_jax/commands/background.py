"""Work on a thread of its own, while this one does something else."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Calls a function on another thread at once.

    Used as a context, it does not leave the function running behind whoever started it.
    """

    def __init__(self, work: Callable[[], T]):
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="moe_jax-background", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """Waits for the function; returns what it returned, or raises what it raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def __enter__(self) -> "Background[T]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()
