"""Which cases of a test belong to the full tier only: those with the marker `slow`."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow(*values: object) -> Any:
    """Returns a case for `parametrize` that is in the full tier only."""
    return pytest.param(*values, marks=pytest.mark.slow)


def mostly_slow(values: Iterable[Any], keep: int | Collection[Any] = 1) -> list[Any]:
    """Returns cases for `parametrize`, most of them in the full tier only.

    Args:
        values: the cases, each of one argument.
        keep: those of both tiers, or how many of the first.
    """
    values = list(values)
    kept = values[:keep] if isinstance(keep, int) else list(keep)
    assert all(value in values for value in kept), f"no such case: {kept}"
    return [value if value in kept else slow(value) for value in values]
