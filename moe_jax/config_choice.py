"""Classes that a parsed configuration selects, such as the router, before they are instantiated."""

from collections.abc import Callable, Mapping
from typing import Any

import gin

from moe_jax import config, settings
from moe_jax.gin_registry import selector_of
from moe_jax.settings import Mistake


def referred(name: str, parameter: str) -> Callable[..., Any] | None:
    """Returns the class or function that a parsed binding refers to; None if it is no reference.

    Args:
        name: name of a configurable, such as `Experiment`.
        parameter: name of its parameter, such as `router`.
    """
    value = gin.config._CONFIG.get(("", selector_of(name)), {}).get(parameter)
    if not isinstance(value, gin.config.ConfigurableReference):
        return None
    return settings.REGISTERED.get(value.config_key[1].rpartition(".")[2])


def add_items(name: str, parameter: str, items: Mapping[str, Any]) -> None:
    """Adds items to a dictionary in the parsed bindings; items that are set keep their values."""
    bindings = gin.config._CONFIG.setdefault(("", selector_of(name)), {})
    value = bindings.get(parameter, {})
    if isinstance(value, Mapping):
        bindings[parameter] = {**items, **value}


def check_bases(name: str, parameter: str) -> None:
    """Reports settings of a base class that were bound after one of its subclasses was chosen.

    `TokenChoice.jitter` has no effect if the router is `@Switch()`, which has its own `jitter`.
    Settings before the choice, and those in files of the package, are not reported: they may be
    meant for another choice.

    Args:
        name: name of a configurable, such as `Experiment`.
        parameter: the parameter with a choice, such as `router`.
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
