"""The classes and functions that gin files can configure."""

import dataclasses
import inspect

import gin

from moe_jax import gin_imports

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
    """Returns the names of the package's own configurables."""
    selectors = [selector for selector, _ in gin.config._REGISTRY.items()]
    return sorted(s.removeprefix(PACKAGE) for s in selectors if s.startswith(PACKAGE))


def registered() -> list[Configurable]:
    """Returns the available configurables: the package's own, then those of imported modules."""
    found = [
        _describe(selector)
        for selector, _ in gin.config._REGISTRY.items()
        if gin_imports.is_available(selector)
    ]
    return sorted(found, key=lambda item: (not item.module.startswith(PACKAGE), item.name))


def _describe(selector: str) -> Configurable:
    target = inspect.unwrap(gin.config._REGISTRY[selector].wrapped)
    lines = inspect.cleandoc(target.__doc__ or "").splitlines()
    return Configurable(
        name=selector.removeprefix(PACKAGE),
        kind="class" if inspect.isclass(target) else "function",
        module=getattr(target, "__module__", ""),
        summary=lines[0].strip() if lines else "",
    )
