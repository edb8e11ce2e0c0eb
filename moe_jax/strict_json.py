"""JSON by its standard: numbers that are not finite are written as null.

Python's own `json` writes `NaN` and `Infinity`, which other readers reject. All `--json` output and
all JSON files of a run are written here.
"""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """Serializes a value to JSON; numbers that are not finite become null."""
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def not_finite(value: Any, name: str = "") -> list[str]:
    """Returns the names of the numbers that are not finite, such as `rows/0/seconds`."""
    value = _plain(value, keep=True)
    if isinstance(value, float) and not math.isfinite(value):
        return [name or "the result"]
    if isinstance(value, list):
        value = dict(enumerate(value))
    items = value.items() if isinstance(value, dict) else ()
    return [n for key, item in items for n in not_finite(item, f"{name}/{key}".lstrip("/"))]


def _plain(value: Any, keep: bool = False) -> Any:
    """Converts a value to plain Python types; `keep` keeps numbers that are not finite."""
    if hasattr(value, "tolist"):  # Arrays and scalars of NumPy and JAX.
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, keep) for item in value]
    if isinstance(value, float) and not keep and not math.isfinite(value):
        return None
    return value
