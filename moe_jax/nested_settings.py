"""Bindings of nested settings that a configuration omits.

With `Experiment.router = @Switch()` and no binding of `Switch.pool`, whose default is
`Pool("sequence")`, `fill` binds `Switch.pool = @Pool()` and `Pool.kind = 'sequence'`. Therefore
`Pool.kind = 'position'` has an effect without an explicit reference, and the saved configuration of
a run is complete.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import gin

from moe_jax.settings import REGISTERED, Settings, parameters

# A function from a registered name to gin's selector.
Selector = Callable[[str], str]


def fill(name: str, selector: Selector) -> None:
    """Binds the omitted nested settings of `name` and, recursively, of its references."""
    _fill(name, "", selector, set())


def _fill(name: str, scope: str, selector: Selector, seen: set[tuple[str, str]]) -> None:
    if name not in REGISTERED or (scope, name) in seen:
        return
    seen.add((scope, name))
    target = REGISTERED[name]
    for parameter, default in _nested(target):
        if not _is_bound(scope, selector(name), parameter):
            called = default if isinstance(default, str) else default.settings_name
            _bind(scope, selector(name), parameter, gin.config.ConfigurableReference(called, True))
            if isinstance(default, Settings):
                _bind_values(scope, selector(called), default)
    for reference in _references(scope, selector(name)):
        inner, called = reference.config_key
        _fill(called.rpartition(".")[2], inner or scope, selector, seen)


def _nested(target: Callable[..., Any]) -> Iterator[tuple[str, Settings | str]]:
    """Yields the parameters whose values are registered settings.

    Each comes with its default or, if it has none, with the registered name of its type.
    """
    hints = get_type_hints(target)
    for parameter, takes in parameters(target).items():
        if takes.default is not None:
            value = takes.default()
            if isinstance(value, Settings) and value.settings_name in REGISTERED:
                yield parameter, value
        elif inspect.isclass(hint := hints.get(parameter)) and hint in REGISTERED.values():
            yield parameter, getattr(hint, "settings_name", "")


def _bind_values(scope: str, selector: str, default: Settings) -> None:
    """Binds the fields of a default value that differ from the defaults of its class."""
    assert dataclasses.is_dataclass(default)
    for name, takes in parameters(type(default)).items():
        value = getattr(default, name)
        differs = takes.default is None or takes.default() != value
        if differs and not _is_bound(scope, selector, name):
            _bind(scope, selector, name, value)


def _scopes(scope: str) -> list[str]:
    parts = scope.split("/") if scope else []
    return ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]


def _is_bound(scope: str, selector: str, parameter: str) -> bool:
    found = (gin.config._CONFIG.get((outer, selector), {}) for outer in _scopes(scope))
    return any(parameter in bindings for bindings in found)


def _bind(scope: str, selector: str, parameter: str, value: Any) -> None:
    gin.config._CONFIG.setdefault((scope, selector), {})[parameter] = value


def _references(scope: str, selector: str) -> Iterator[gin.config.ConfigurableReference]:
    for outer in _scopes(scope):
        for value in list(gin.config._CONFIG.get((outer, selector), {}).values()):
            if isinstance(value, gin.config.ConfigurableReference) and value.evaluate:
                yield value
