"""Conversion of dataclasses to JSON and back without loss, by the annotations of their fields.

JSON has no tuples, no numbers that are not finite, and no keys but texts. Where an annotation says
what is meant, a tuple is written as a list and a number that is not finite as its name, such as
`"inf"`. In fields of any type they are written as objects:

| value                                       | written as                  |
|---------------------------------------------|-----------------------------|
| a tuple                                     | `{"$tuple": [...]}`         |
| a number that is not finite                 | `{"$float": "inf"}`         |
| a mapping with keys that are not plain texts| `{"$map": [[KEY, VALUE]]}`  |

Finite numbers are written with all digits (`repr`).
"""

import dataclasses
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from moe_jax.errors import UserError, nearest

# No count of a run reaches it; NumPy has no larger integers.
LARGEST = 2**63
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_TAGS = ("$tuple", "$float", "$map")
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def encode(value: Any, hint: Any = Any) -> Any:
    """Returns a value as plain JSON values.

    Args:
        value: the value, which fits the annotation.
        hint: the annotation: a dataclass, `tuple[X, ...]`, `Mapping`, `X | None`, `Literal`, a
            plain type, or `Any`.
    """
    if hasattr(value, "tolist"):  # Arrays and scalars of NumPy and JAX.
        value = value.tolist()
    if dataclasses.is_dataclass(value):
        hints = get_type_hints(type(value))
        return {f.name: encode(getattr(value, f.name), hints[f.name]) for f in _fields(type(value))}
    if hint is Any:
        return _encode_any(value)
    arguments = get_args(hint)
    if value is None or _is_union(hint):
        return None if value is None else encode(value, _present(hint))
    if get_origin(hint) is tuple:
        return [encode(item, arguments[0]) for item in value]
    if get_origin(hint) is Mapping and arguments[0] is str:
        return {str(key): encode(item, arguments[1]) for key, item in value.items()}
    if get_origin(hint) is Mapping:
        return [[encode(k, arguments[0]), encode(v, arguments[1])] for k, v in value.items()]
    if hint is float:
        return float(value) if math.isfinite(value) else repr(float(value))
    return value


def decode(value: Any, hint: Any, where: str) -> Any:
    """Returns the value of an annotation from plain JSON values.

    Args:
        value: what `encode` has returned, perhaps changed by somebody.
        hint: the annotation.
        where: names the value in messages.

    Raises:
        UserError: if the value does not fit the annotation; in one line.
    """
    if hint is Any:
        return _decode_any(value, where)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(value, hint, where)
    if _is_union(hint):
        return None if value is None else decode(value, _present(hint), where)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        if not isinstance(value, str) or value not in arguments:
            hinted = nearest(value, arguments) if isinstance(value, str) else ""
            raise _wrong(where, f"one of {', '.join(arguments)}", value, hinted)
        return value
    if origin is tuple:
        _require(isinstance(value, list), where, "a list", value)
        return tuple(decode(v, arguments[0], f"{where}[{i}]") for i, v in enumerate(value))
    if origin is Mapping:
        return _decode_mapping(value, arguments, where)
    if hint is float:
        return _decode_float(value, where)
    # True is no whole number.
    _require(type(value) is hint, where, _NAMES[hint], value)
    if hint is int and not -LARGEST <= value < LARGEST:
        raise UserError(f"{where} is a whole number that is too large")
    return value


def _decode_dataclass(value: Any, cls: Any, where: str) -> Any:
    _require(isinstance(value, dict), where, "an object", value)
    hints = get_type_hints(cls)
    fields = {field.name: field for field in _fields(cls)}
    for name in value:
        if name not in fields:
            raise UserError(f"{where} has an unknown field {name!r}.{nearest(name, fields)}")
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = decode(value[name], hints[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING:
            raise UserError(f"{where} has no {name!r}")
    return cls(**found)


def _decode_mapping(value: Any, arguments: tuple[Any, Any], where: str) -> dict[Any, Any]:
    key, item = arguments
    if key is str:
        _require(isinstance(value, dict), where, "an object", value)
        return {name: decode(v, item, f"{where}[{name!r}]") for name, v in value.items()}
    is_pairs = isinstance(value, list) and all(isinstance(p, list) and len(p) == 2 for p in value)
    _require(is_pairs, where, "a list of pairs", value)
    return {decode(k, key, where): decode(v, item, f"{where}[{k!r}]") for k, v in value}


def _decode_float(value: Any, where: str) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    _require(
        isinstance(value, int | float) and not isinstance(value, bool), where, "a number", value
    )
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{where} is a whole number that is too large") from None


def _encode_any(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, tuple):
        return {"$tuple": [_encode_any(item) for item in value]}
    if isinstance(value, list):
        return [_encode_any(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in _TAGS for key in value):
            return {key: _encode_any(item) for key, item in value.items()}
        return {"$map": [[_encode_any(key), _encode_any(item)] for key, item in value.items()]}
    return value


def _decode_any(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_decode_any(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), None)
    if len(value) != 1 or tag not in _TAGS:
        return {key: _decode_any(item, where) for key, item in value.items()}
    inner = value[tag]
    if tag == "$float":
        return _decode_float(inner, where)
    _require(isinstance(inner, list), where, "a list", inner)
    if tag == "$tuple":
        return tuple(_decode_any(item, where) for item in inner)
    try:
        return _decode_mapping(inner, (Any, Any), where)
    except TypeError:  # A key that cannot be one.
        raise UserError(f"{where} has a key that is a list or an object") from None


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _present(hint: Any) -> Any:
    """Returns X of `X | None`; any other annotation as it is."""
    if not _is_union(hint):
        return hint
    (present,) = (argument for argument in get_args(hint) if argument is not type(None))
    return present


def _require(fits: bool, where: str, right: str, value: Any) -> None:
    if not fits:
        raise _wrong(where, right, value)


def _wrong(where: str, right: str, value: Any, hint: str = "") -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return UserError(f"{where} must be {right}, not {shown}.{hint}".rstrip("."))
