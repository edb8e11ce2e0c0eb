"""Checks of values against annotations, with a one-line message for a mismatch."""

import collections.abc
import inspect
import math
import numbers
import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from moe_jax.errors import nearest

# The registered classes and functions by name: see `checked.register`.
REGISTERED: dict[str, Callable[..., Any]] = {}

_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
_SEQUENCES = (list, tuple)
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_BOUNDED = f" and at most {_LARGEST_FLOAT:.2g} (float32)"


def describe_mismatch(label: str, hint: Any, value: object, where: str = "") -> str | None:
    """Describes why a value does not match an annotation, in one line; None if it matches.

    Args:
        label: the name of the setting, such as `Model.d_model`.
        hint: the annotation.
        value: the value.
        where: where it was set, such as ` (my.gin, line 3)`.
    """
    if matches(hint, value):
        return None
    label, hint, value = _innermost(label, hint, value)
    if name := reference_name(value):
        return f"{label} must be {expected(hint, None)}, not @{name}{where}: write @{name}()"
    choices = _choices(hint)
    if isinstance(value, str) and choices:
        return (
            f"{label} = {format_value(value)}{where} is unknown; known: {', '.join(choices)}."
            + nearest(value, choices)
        )
    advice = _advice(hint, value)
    return f"{label} must be {expected(hint, value)}, not {format_value(value)}{advice}{where}"


def matches(hint: Any, value: object) -> bool:
    """Returns whether a value matches an annotation.

    Raises:
        TypeError: for an annotation that is not supported.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        base, *notes = arguments
        ranges = [note for note in notes if not isinstance(note, str)]
        return matches(base, value) and all(note.contains(_used(base, value)) for note in ranges)
    if hint is Any:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(matches(argument, value) for argument in arguments)
    if hint in _WORDS:
        return _is_plain(hint, value)
    if origin is tuple and arguments[-1:] != (...,):
        return _is_list(value, arguments)
    if origin in (tuple, collections.abc.Sequence):
        return isinstance(value, _SEQUENCES) and all(matches(arguments[0], item) for item in value)
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping) and all(
            matches(arguments[0], key) and matches(arguments[1], item)
            for key, item in value.items()
        )
    if origin is collections.abc.Callable:
        return callable(value) and not inspect.isclass(value) and reference_name(value) is None
    if inspect.isclass(hint) and origin is None:
        return isinstance(value, hint)
    raise TypeError(f"there is no rule for the annotation {hint}")


def check_annotation(hint: Any) -> None:
    """Checks that an annotation, with all annotations inside it, is supported.

    Raises:
        TypeError: if it is not.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is not Annotated:
        matches(hint, None)
    else:
        check_annotation(arguments[0])
        if not all(isinstance(note, str) or hasattr(note, "contains") for note in arguments[1:]):
            raise TypeError(f"there is no rule for the annotation {hint}")
    if origin not in (Annotated, Literal, collections.abc.Callable):
        for argument in arguments:
            if argument is not ...:
                check_annotation(argument)
    expected(hint, None)


def expected(hint: Any, value: object) -> str:
    """Describes the values that match an annotation, for a message about `value`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:], value)
    if hint in _WORDS:
        return _WORDS[hint] + _finite(value)
    if hint is None or hint is types.NoneType:
        return "None"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        parts = [expected(argument, value) for argument in arguments]
        return ", or ".join(parts)
    if origin in (tuple, collections.abc.Sequence):
        return "a tuple in parentheses"
    if origin is collections.abc.Mapping:
        return "a dictionary in braces"
    made = sorted(f"@{name}()" for name, target in REGISTERED.items() if _makes(target, hint))
    return ("one of " if len(made) > 2 else "") + (
        ", ".join(made) if len(made) > 2 else " or ".join(made) or _kind(hint)
    )


def format_value(value: object) -> str:
    """Formats a value as in gin files, truncated to a readable length."""
    if name := reference_name(value):
        return f"@{name}"
    for name, target in REGISTERED.items():
        if inspect.isclass(target) and type(value) is target:
            return f"@{name}()"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def reference_name(value: object) -> str | None:
    """Returns the name of a registered class or function that is not called (`@Name`)."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return None
    name = getattr(value, "settings_name", None)
    return name if name in REGISTERED else None


def _is_plain(hint: type, value: object) -> bool:
    if hint is bool or isinstance(value, bool):
        return hint is bool and isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral)
    if hint is float:
        return isinstance(value, numbers.Real) and _is_finite(value)
    return isinstance(value, hint)


def _is_finite(value: Any) -> bool:
    try:
        return abs(value) <= _LARGEST_FLOAT
    except OverflowError:
        return False


def _used(base: Any, value: Any) -> Any:
    """Rounds a number to float32, in which it will be used."""
    return float(np.float32(value)) if base is float else value


def _is_list(value: object, hints: tuple[Any, ...]) -> bool:
    if not isinstance(value, _SEQUENCES) or len(value) != len(hints):
        return False
    return all(matches(hint, item) for hint, item in zip(hints, value, strict=True))


def _innermost(label: str, hint: Any, value: object) -> tuple[str, Any, object]:
    """Returns label, annotation and value of the innermost mismatch."""
    for branch in _branches(hint):
        origin, arguments = get_origin(branch), get_args(branch)
        if origin is collections.abc.Mapping and isinstance(value, Mapping):
            for key, item in value.items():
                if not matches(arguments[0], key):
                    return _innermost(f"a key of {label}", arguments[0], key)
                if not matches(arguments[1], item):
                    return _innermost(f"{label}[{format_value(key)}]", arguments[1], item)
        if origin in (tuple, collections.abc.Sequence) and isinstance(value, _SEQUENCES):
            same = arguments[-1:] == (...,) or origin is not tuple
            inner = [arguments[0]] * len(value) if same else list(arguments)
            for place, (one, item) in enumerate(zip(inner, value, strict=False)):
                if not matches(one, item):
                    return _innermost(f"{label}[{place}]", one, item)
    return label, hint, value


def _branches(hint: Any) -> list[Any]:
    """Returns the alternatives of an annotation without their metadata."""
    if get_origin(hint) is Annotated:
        return _branches(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return [branch for argument in get_args(hint) for branch in _branches(argument)]
    return [hint]


def _choices(hint: Any) -> list[str]:
    found = [c for b in _branches(hint) if get_origin(b) is Literal for c in get_args(b)]
    return [choice for choice in found if isinstance(choice, str)]


def _annotated(base: Any, notes: tuple[Any, ...], value: object) -> str:
    said = " ".join(f" {note}" for note in notes if isinstance(note, str))
    for note in notes:
        if not isinstance(note, str):
            text = note.describe(value)
            if base is int:
                comma = "" if text.startswith(("above", "from")) else ","
                return f"a whole number{comma} {text}{said}"
            if base is float:
                is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
                return f"{'' if is_number else 'a number '}{text}{_finite(value)}{said}"
            return f"{text}{said}"
    return expected(base, value) + said


def _finite(value: object) -> str:
    if not isinstance(value, numbers.Real) or _is_finite(value):
        return ""
    return " and finite" if isinstance(value, float) and not math.isfinite(value) else _BOUNDED


def _advice(hint: Any, value: object) -> str:
    """Suggests how to write a value that is nearly right, in parentheses."""
    wanted = {get_args(b)[0] if get_origin(b) is Annotated else b for b in _branches(hint)}
    if int in wanted and isinstance(value, float) and _is_finite(value) and value.is_integer():
        return f" (write {int(value)})" if matches(hint, int(value)) else ""
    if float in wanted and isinstance(value, float) and _is_finite(value):
        used = _used(float, value)
        return f" ({used:g} in float32)" if used != value and used in (0.0, 1.0) else ""
    return ""


def _makes(target: Callable[..., Any], hint: Any) -> bool:
    if inspect.isclass(target):
        return inspect.isclass(hint) and issubclass(target, hint)
    return bool(get_type_hints(target).get("return") == hint)


def _kind(hint: Any) -> str:
    return "something to call" if get_origin(hint) else f"a {getattr(hint, '__name__', hint)}"
