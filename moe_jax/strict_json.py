"""JSON as its standard has it: numbers that are not finite become null, and are named.

Python's own `json` writes `NaN` and `Infinity`, which no other reader takes. All that is printed
with `--json` and all JSON files of a run are written here.
"""

import json
import math
from collections.abc import Mapping
from typing import Any


def dumps(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON; what is not finite is null."""
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
    """Makes Python's own types of all; with `keep`, what is not finite stays as it is."""
    if hasattr(value, "tolist"):  # Arrays and scalars of NumPy and JAX.
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: _plain(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, keep) for item in value]
    if isinstance(value, float) and not keep and not math.isfinite(value):
        return None
    return value
