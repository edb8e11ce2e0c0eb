"""Dataclasses and functions whose arguments are checked against their annotations."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, ParamSpec, TypeVar, get_type_hints

from moe_jax.errors import UserError, combined
from moe_jax.settings.values import REGISTERED, describe_mismatch

_P = ParamSpec("_P")
_R = TypeVar("_R")
_NO_DEFAULT = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A mistake in a configuration.

    Attributes:
        text: the message, in one line.
        kind: `value`, an invalid value; `missing`, a required value that is not set; `rule`, a
            conflict between values; `reading`, a statement that cannot be executed; `broken`, a
            file whose rest was not read; `unused`, a macro that nothing uses.
        where: where an invalid value was set, such as ` (my.gin, line 3)`.
    """

    text: str
    kind: Literal["value", "missing", "rule", "reading", "broken", "unused"]
    where: str = ""


class Unusable:
    """Placeholder for a value that could not be built, for a mistake noted already."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Unusable":
        return self


class Undefined(Unusable):
    """Placeholder for the value of an undefined macro."""

    def __init__(self, macro: str, hint: str):
        self.macro, self.hint = macro, hint


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function.

    Attributes:
        hint: the annotation.
        default: returns the default; None if the parameter is required.
    """

    hint: Any
    default: Callable[[], Any] | None


class Settings:
    """Base class of the dataclasses that gin files configure; checks the fields of new objects.

    Subclasses are decorated with `dataclasses.dataclass`. Conditions on several fields are static
    methods decorated with `rule`.

    Raises:
        UserError: for all invalid values, one in a line.
    """

    settings_name: ClassVar[str] = ""

    def __init_subclass__(cls, called: str = "", **options: Any):
        super().__init_subclass__(**options)
        cls.settings_name = called or cls.__name__

    def __post_init__(self) -> None:
        target: Callable[..., Any] = type(self)
        values = {name: getattr(self, name) for name in parameters(target)}
        _refuse(mistakes(target, values))
        for name, value in values.items():
            if isinstance(value, list):
                # Settings are hashed.
                object.__setattr__(self, name, tuple(value))


def rule(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Marks a method of `Settings` that raises `UserError` for a conflict between fields.

    It is a static method, or a class method whose messages name the class. Its parameters are named
    like the fields that it needs; it is called if these are valid.
    """
    function.is_rule = True  # type: ignore[attr-defined]
    return function


def checked(called: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorates a function so that its arguments are checked against their annotations.

    Args:
        called: the name of the function in gin files, for messages.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            _refuse(mistakes(call, signature.bind(*args, **kwargs).arguments))
            return function(*args, **kwargs)

        call.settings_name = called  # type: ignore[attr-defined]
        return call

    return decorate


def register(name: str, target: Callable[..., Any]) -> None:
    """Registers a class or function under the name that gin files use.

    Raises:
        ValueError: if it is not `Settings` or `checked` with that name.
    """
    own = getattr(target, "settings_name", None)
    if own != name:
        raise ValueError(f"{name} must be `Settings` or `checked` under that name, not {own!r}")
    REGISTERED[name] = target


@functools.cache
def parameters(target: Callable[..., Any]) -> dict[str, Parameter]:
    """Returns the parameters of a dataclass or a function by name."""
    hints = get_type_hints(target, include_extras=True)
    if dataclasses.is_dataclass(target):
        fields = (field for field in dataclasses.fields(target) if field.init)
        return {f.name: Parameter(hints.get(f.name), _default_of(f)) for f in fields}
    taken = inspect.signature(target).parameters.values()
    return {
        p.name: Parameter(
            hints.get(p.name), None if p.default is _NO_DEFAULT else functools.partial(_same, p)
        )
        for p in taken
    }


def mistakes(
    target: Callable[..., Any],
    values: Mapping[str, Any],
    where: Callable[[str], str] = lambda name: "",
) -> list[Mistake]:
    """Returns all mistakes in the arguments of a dataclass or a function.

    Values that are `Unusable`, and rules that need them, are skipped.

    Args:
        target: the class or function.
        values: the arguments by name.
        where: returns where an argument was set, such as ` (my.gin, line 3)`.
    """
    name, found, valid = getattr(target, "settings_name", ""), [], {}
    for parameter, takes in parameters(target).items():
        label = f"{name}.{parameter}"
        if parameter not in values:
            if takes.default is None:
                found.append(Mistake(f"{label} needs a value", "missing"))
            else:
                valid[parameter] = takes.default()
            continue
        value = values[parameter]
        unusable = list(_unusable(value))
        for macro in (item for item in unusable if isinstance(item, Undefined)):
            text = f"nothing defines the macro %{macro.macro} of {label}{where(parameter)}"
            found.append(Mistake(f"{text}.{macro.hint}", "missing"))
        if unusable:
            continue
        if wrong := describe_mismatch(label, takes.hint, value, place := where(parameter)):
            found.append(Mistake(wrong, "value", place))
        else:
            valid[parameter] = value
    for check in _rules(target):
        needs = inspect.signature(check).parameters
        if needs.keys() <= valid.keys():
            try:
                check(**{need: valid[need] for need in needs})
            except UserError as error:
                found.append(Mistake(str(error), "rule"))
    return found


def any_unusable(values: Iterable[Any]) -> bool:
    """Returns whether any of the nested values is `Unusable`."""
    return any(True for value in values for _ in _unusable(value))


def _refuse(found: list[Mistake]) -> None:
    if found:
        raise combined(mistake.text for mistake in found)


def _rules(target: Callable[..., Any]) -> list[Callable[..., None]]:
    if not inspect.isclass(target):
        return []
    members = {name: None for base in reversed(target.__mro__) for name in vars(base)}
    found = [inspect.getattr_static(target, name, None) for name in members]
    methods = [item for item in found if isinstance(item, staticmethod | classmethod)]
    return [
        method.__get__(None, target)
        for method in methods
        if getattr(method.__func__, "is_rule", False)
    ]


def _unusable(value: object) -> Iterator[Unusable]:
    if isinstance(value, Unusable):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _unusable(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _unusable(item)


def _default_of(field: "dataclasses.Field[Any]") -> Callable[[], Any] | None:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory
    if field.default is not dataclasses.MISSING:
        return lambda: field.default
    return None


def _same(parameter: inspect.Parameter) -> Any:
    return parameter.default
