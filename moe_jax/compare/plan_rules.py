"""Rules that the settings of all plans of many runs obey."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moe_jax.compare.plan_files import is_file
from moe_jax.errors import UserError, combined

# Names of arms, models and variants are names of directories.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def raise_all(messages: Iterable[str]) -> None:
    """Raises an error of several messages, if there are any."""
    if found := list(messages):
        raise combined(found)


def bad_names(names: Iterable[str]) -> list[str]:
    """Returns a message for each name that cannot be that of a directory."""
    return [
        f"the name {name!r} cannot be that of a directory; letters, digits, '_', '-' and '.' can"
        for name in names
        if not _NAME.fullmatch(name)
    ]


def check_items(plan: str, groups: Mapping[str, Iterable[str]]) -> None:
    """Refuses items that are neither a gin file nor a binding.

    Args:
        plan: name of the plan's settings, such as `Study`.
        groups: the items, by the setting that has them.

    Raises:
        UserError: for all such items, one in a line.
    """
    raise_all(
        f"{plan}.{setting}: {item!r} is neither a gin file (it would end in .gin) nor a binding "
        "(NAME=VALUE)"
        for setting, items in groups.items()
        for item in items
        if not is_file(item) and "=" not in item
    )


def check_seeds(plan: str, seeds: Sequence[int]) -> None:
    """Refuses no seeds, and equal ones.

    Raises:
        UserError: in one line.
    """
    if not seeds:
        raise UserError(f"{plan}.seeds has no seed")
    check_distinct(plan, {"seeds": seeds})


def check_distinct(plan: str, lists: Mapping[str, Sequence[Any]]) -> None:
    """Refuses lists with equal values.

    Args:
        plan: name of the plan's settings, such as `Study`.
        lists: the values, by the setting that has them.

    Raises:
        UserError: for all such lists, one in a line.
    """
    raise_all(
        f"{plan}.{name} has a value twice: {values}"
        for name, values in lists.items()
        if len(set(values)) < len(values)
    )
