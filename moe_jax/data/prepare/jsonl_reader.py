"""Reads JSONL files: an object on each line, with fields of known types."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moe_jax.data.prepare.row_reader import (
    DataFile,
    KeyedExample,
    MalformedRowError,
    decode,
    not_empty,
)


def parse_object(line: bytes) -> dict[str, Any]:
    """Returns the JSON object in a line; raises `MalformedRowError` if it is not one."""
    try:
        value = json.loads(decode(line))
    except ValueError as error:
        raise MalformedRowError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise MalformedRowError("not a JSON object")
    return value


def read_objects(
    file: DataFile,
    parse: Callable[[int, dict[str, Any]], Iterable[KeyedExample]],
    unique_keys: bool = False,
) -> Iterator[KeyedExample]:
    """Yields the examples that `parse` makes of (index, object) of each line of a JSONL file.

    A row with the key of an earlier one is malformed.

    Args:
        file: file with a JSON object on each line.
        parse: makes any number of examples of an object, or raises `MalformedRowError`.
        unique_keys: whether the keys are the indices, which need no check.
    """
    seen: set[str | int] = set()
    index = itertools.count()

    def once(line: bytes) -> list[KeyedExample]:
        number, pairs = next(index), []
        for key, example in parse(number, parse_object(line)):
            if key in seen:
                raise MalformedRowError(f"index {key} was there before")
            if not unique_keys:
                seen.add(key)
            pairs.append((key, example))
        return pairs

    yield from file.rows(not_empty(file.lines()), once)


def get_field(row: dict[str, Any], name: str, kind: type) -> Any:
    """Returns a field of a JSON object.

    Raises:
        MalformedRowError: if it is missing or of another type.
    """
    if name not in row:
        raise MalformedRowError(f"no field {name!r} (there are {', '.join(map(str, row))})"[:200])
    value = row[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedRowError(f"field {name!r} is {type(value).__name__}, not {kind.__name__}")
    return value
