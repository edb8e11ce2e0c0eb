"""The choices of a configuration that was parsed, such as the router, before anything is built."""

from collections.abc import Callable, Mapping
from typing import Any

import gin

from moe_jax import config, settings
from moe_jax.gin_registry import selector_of
from moe_jax.settings import Mistake


def referred(name: str, parameter: str) -> Callable[..., Any] | None:
    """Returns the class or function that makes a value, in what was parsed; None for no reference.

    Args:
        name: of something registered, such as `Experiment`.
        parameter: of it, such as `router`.
    """
    value = gin.config._CONFIG.get(("", selector_of(name)), {}).get(parameter)
    if not isinstance(value, gin.config.ConfigurableReference):
        return None
    return settings.REGISTERED.get(value.config_key[1].rpartition(".")[2])


def add_items(name: str, parameter: str, items: Mapping[str, Any]) -> None:
    """Adds items that are not set to a dictionary among the values that were parsed."""
    bindings = gin.config._CONFIG.setdefault(("", selector_of(name)), {})
    value = bindings.get(parameter, {})
    if isinstance(value, Mapping):
        bindings[parameter] = {**items, **value}


def check_bases(name: str, parameter: str) -> None:
    """Refuses settings of a base class that were made after one of its subclasses was chosen.

    `TokenChoice.jitter` sets nothing if the router is `@Switch()`, which has a jitter of its own.
    Settings from before the choice, and those of the package's files, may be there for another.

    Args:
        name: of what has a choice, such as `Experiment`.
        parameter: the choice, such as `router`.
    """
    chosen = referred(name, parameter)
    bases = {base.__name__ for base in getattr(chosen, "__mro__", ())[1:]}
    is_after = False
    for (_, selector, field), location in config.locations.items():
        if (selector, field) == (selector_of(name), parameter):
            is_after = True
            continue
        owner = selector.rpartition(".")[2]
        if not is_after or location.is_packaged:
            continue
        if owner in bases and owner in settings.REGISTERED:
            used = getattr(chosen, "settings_name", "")
            text = (
                f"{owner}.{field}{config.in_parentheses(location)} has no effect on "
                f"{name}.{parameter} = @{used}(): set {used}.{field}"
            )
            config.note([Mistake(text, "rule")])
