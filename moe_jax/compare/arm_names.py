"""Readable names and descriptions of arms, from the names and settings of their runs."""

import re
from collections.abc import Sequence

from moe_jax.compare.fingerprints import decides
from moe_jax.compare.records import RunRecord

# The end of a directory's name that numbers the runs of an arm, as in `switch_seed3` or `ec/0`.
_NUMBER = re.compile(
    r"([-_./= ]+(seed|run|rep|s|r)?|^(seed|run|rep|s|r))[-_=]?(?P<number>\d*)$", re.IGNORECASE
)
_ONLY_A_NUMBER = re.compile(r"(seed|run|rep|s|r)[-_]?\d+", re.IGNORECASE)
_PUNCTUATION = "-_./= "
# Settings in a name, and in a description.
_MOST_IN_NAME, _MOST_IN_WORDS = 3, 6
_LONGEST_VALUE = 40
# Names of settings in names of arms, where the last part does not say what it is.
_SHORT = {"Pool.kind": "pool", "Pool.rows": "pool_rows"}
# Of texts, and of the gin reference `@X()`.
_QUOTES = "'@()"
# These differ between runs, follow from other settings, or are of the data, which must be the same;
# the router is named first.
_NOT_SAID = re.compile(
    r"(Train|Data)\.seed|Experiment\.router|.*\.total_steps|Data\.(eval_.*|task|vocabulary)"
)

Group = Sequence[RunRecord]


def name_groups(groups: Sequence[Group]) -> list[str]:
    """Returns a name for each arm; no two are equal.

    It is what the names of the arm's directories have in common, if that tells it from other arms,
    and otherwise the router with the settings in which arms differ. If the directories of half of
    the arms have no such names, no arm is named after them.
    """
    names = [_common_name(group) for group in groups]
    usable = [bool(name) and names.count(name) == 1 for name in names]
    if 2 * sum(usable) <= len(groups):
        usable = [False] * len(groups)
    return _distinct(
        [
            name if is_usable else _name_by_settings(group, groups)
            for name, is_usable, group in zip(names, usable, groups, strict=True)
        ]
    )


def describe_groups(groups: Sequence[Group]) -> list[str]:
    """Returns for each arm the words that describe it: router, pool and what differs."""
    words = []
    for group in groups:
        first = group[0]
        pool = f", {first.pool} pool" if first.pool else ""
        differing = _differing(group, groups).items()
        said = [f"{name} = {value}" for name, value in differing if name != "Pool.kind"]
        more = f", and {len(said) - _MOST_IN_WORDS} more" if len(said) > _MOST_IN_WORDS else ""
        settings = f": {', '.join(said[:_MOST_IN_WORDS])}{more}" if said else ""
        words.append(f"{first.router}{pool}{settings}")
    return words


def _common_name(group: Group) -> str:
    """Returns the common beginning of the directories' names, without what numbers the runs."""
    name = _common_beginning([record.name for record in group])
    numbered = _NUMBER.search(name)
    if len(group) > 1 or (numbered and numbered["number"] == str(group[0].seed)):
        name = _NUMBER.sub("", name)
    name = name.strip(_PUNCTUATION)
    is_number = not re.search(r"[A-Za-z]", name) or _ONLY_A_NUMBER.fullmatch(name)
    return "" if is_number else name


def _common_beginning(names: Sequence[str]) -> str:
    """Returns the longest common beginning that does not end inside of a word."""
    shortest, longest = min(names), max(names)
    length = 0
    while length < len(shortest) and shortest[length] == longest[length]:
        length += 1
    common = shortest[:length]
    if any(name[length:][:1].isalpha() for name in names):
        common = re.sub(r"[A-Za-z]+$", "", common)
    return common


def _name_by_settings(group: Group, groups: Sequence[Group]) -> str:
    router = group[0].router
    alike = [other for other in groups if other[0].router == router]
    if len(alike) == 1:
        return router
    differing = _differing(group, alike).items()
    parts = [f"{_SHORT.get(n, n.rpartition('.')[2])}={v.strip(_QUOTES)}" for n, v in differing]
    return " ".join([router, *parts[:_MOST_IN_NAME]])


def _differing(group: Group, groups: Sequence[Group]) -> dict[str, str]:
    """Returns the settings of an arm that other arms have with other values."""
    own = group[0].settings
    found = {}
    for name, value in own.items():
        if not decides(name) or _NOT_SAID.fullmatch(name):
            continue
        if any(other[0].settings.get(name, value) != value for other in groups):
            short = value if len(value) <= _LONGEST_VALUE else f"{value[: _LONGEST_VALUE - 3]}..."
            found[name] = short
    return found


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns the names, those that occurred before with a number."""
    found: list[str] = []
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} #{number}"
        found.append(unique)
    return found
