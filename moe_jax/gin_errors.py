"""Explanations of gin's errors in one line, with the nearest right name."""

import inspect
import re
from typing import Any

import gin

from moe_jax.errors import nearest
from moe_jax.gin_registry import PACKAGE, configurable_names

MACRO = "gin.macro"


def explain(error: Exception, where: str) -> str:
    """Explains an error of gin in one line.

    Args:
        error: the error.
        where: where it was raised, such as ` (my.gin, line 3)`.
    """
    text = str(error)
    if match := re.search(r"No configurable matching '([^']+)'", text):
        name = match[1].split("/")[-1].removeprefix(PACKAGE)
        if name == "Study":  # Only what reads studies registers it.
            return "Study.* is for `moe-jax compare`: this gin file is a study of several runs"
        return f"nothing called {name!r} can be configured{where}." + _nearest_configurable(name)
    if match := re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text):
        owner = match[1].removeprefix(PACKAGE)
        hint = nearest(match[2], _parameters(match[1]))
        return f"{owner} has no parameter {match[2]!r}{where}.{hint}"
    if match := re.search(r"No configurable matching reference '@([^'()]+)", text):
        return f"nothing is called @{match[1]}{where}." + _nearest_configurable(match[1])
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{first}{where}"


def explain_circle() -> str:
    """Explains a recursion by the values that refer to each other in a circle."""
    follows = {
        key: [reference.config_key for reference in references(values) if reference.evaluate]
        for key, values in gin.config._CONFIG.items()
    }

    def search(path: list[tuple[str, str]]) -> list[tuple[str, str]]:
        for key in follows.get(path[-1], []):
            if key in path:
                return [*path[path.index(key) :], key]
            if circle := search([*path, key]):
                return circle
        return []

    circle: list[tuple[str, str]] = next(filter(None, (search([key]) for key in follows)), [])
    names = [
        f"%{scope}" if name == MACRO else f"@{name.removeprefix(PACKAGE)}()"
        for scope, name in circle
    ]
    return f"values are made of each other in a circle: {' -> '.join(names)}"


def references(values: Any) -> list[gin.config.ConfigurableReference]:
    """Returns the references in nested values."""
    return list(gin.config.iterate_references(values))


def _nearest_configurable(name: str) -> str:
    known = configurable_names()
    return nearest(name.split(".")[0], known) or f" Known: {', '.join(known)}."


def _parameters(selector: str) -> list[str]:
    target = gin.config._REGISTRY.get_match(selector).wrapped
    return list(inspect.signature(target).parameters)
