"""Execution of a function on a background thread."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Background(Generic[T]):
    """Starts a function on a background thread; leaving the context waits for its end."""

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
        """Waits for the function and returns its result, or raises its exception."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value

    def __enter__(self) -> "Background[T]":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join()
