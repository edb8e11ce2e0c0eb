"""The classes and functions that gin files can configure."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import gin

from moe_jax import gin_imports
from moe_jax.settings import REGISTERED

# Prefix of the selectors of the package's own configurables.
PACKAGE = "moe_jax."


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A class or function that is registered with gin.

    Attributes:
        name: as gin files write it.
        kind: `class` or `function`.
        module: the module that defines it.
        summary: the first line of its docstring.
    """

    name: str
    kind: str
    module: str
    summary: str


def configurable_names() -> list[str]:
    """Returns the names of all configurables, those of users' modules among them."""
    return sorted(REGISTERED)


def gin_module(target: Callable[..., Any]) -> str:
    """Returns the module under which gin knows a class or function: `moe_jax`, or its own."""
    package = PACKAGE.removesuffix(".")
    return package if target.__module__.partition(".")[0] == package else target.__module__


def selector_of(name: str) -> str:
    """Returns gin's selector, with the module, of a registered name."""
    return f"{gin_module(REGISTERED[name])}.{name}"


def registered() -> list[Configurable]:
    """Returns the available configurables: the package's own, then those of imported modules."""
    found = [
        _describe(selector)
        for selector, _ in gin.config._REGISTRY.items()
        if gin_imports.is_available(selector)
    ]
    return sorted(found, key=lambda item: (not item.module.startswith(PACKAGE), item.name))


def _describe(selector: str) -> Configurable:
    registered = gin.config._REGISTRY[selector].wrapped
    target = inspect.unwrap(REGISTERED.get(selector.rpartition(".")[2], registered))
    lines = inspect.cleandoc(target.__doc__ or "").splitlines()
    return Configurable(
        name=selector.removeprefix(PACKAGE),
        kind="class" if inspect.isclass(target) else "function",
        module=getattr(target, "__module__", ""),
        summary=lines[0].strip() if lines else "",
    )
