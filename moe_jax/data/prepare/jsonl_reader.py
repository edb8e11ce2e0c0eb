"""Reads JSONL: an object a line, its fields of known types."""

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
    counted: bool = False,
) -> Iterator[KeyedExample]:
    """Yields what `parse` makes of (index, object) of each line of a JSONL file.

    A key that was there before makes a row malformed.

    Args:
        file: with a JSON object on each line.
        parse: makes any number of examples of an object, or raises `MalformedRowError`.
        counted: the keys are the indices, of which none comes twice; nothing is remembered.
    """
    seen: set[str | int] = set()
    index = itertools.count()

    def once(line: bytes) -> list[KeyedExample]:
        number, pairs = next(index), []
        for key, example in parse(number, parse_object(line)):
            if key in seen:
                raise MalformedRowError(f"index {key} was there before")
            if not counted:
                seen.add(key)
            pairs.append((key, example))
        return pairs

    yield from file.rows(not_empty(file.lines()), once)


def get_field(row: dict[str, Any], name: str, kind: type) -> Any:
    """Returns a field of a JSON object; raises `MalformedRowError` if it is absent or of another type."""
    if name not in row:
        raise MalformedRowError(f"no field {name!r} (there are {', '.join(map(str, row))})"[:200])
    value = row[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise MalformedRowError(f"field {name!r} is {type(value).__name__}, not {kind.__name__}")
    return value
