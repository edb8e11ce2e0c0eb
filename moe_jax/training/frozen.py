"""Frozen parameters: patterns of the names of parameters that training leaves as they are.

A pattern is a glob (`fnmatch`: `*` stands for any text, `?` for a character) of one or several
whole components of a name. `router_kernel`, `experts` and `attention/query` match
`groups/layers/0/ffn/router_kernel`, `groups/layers/0/ffn/experts/wi` and
`groups/layers/1/attention/query`; `*` matches every name. A pattern after `!` takes back what the
patterns before it matched. As in a `.gitignore` file, the last pattern that matches a name decides:

| trained                | `Train.frozen`             |
|------------------------|----------------------------|
| all                    | `()`                       |
| all but the experts    | `('experts',)`             |
| the experts only       | `('all_but_experts',)`     |
| all but the routers    | `('router',)`              |
| the routers only       | `('all_but_router',)`      |

The last three are groups, short for `('*', '!experts')`, `('router_kernel',)` and
`('*', '!router_kernel')`.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from moe_jax.errors import UserError, nearest

# Names that stand for several patterns, or for a less familiar one.
GROUPS = {
    "all_but_experts": ("*", "!experts"),
    "router": ("router_kernel",),
    "all_but_router": ("*", "!router_kernel"),
}


def frozen_names(patterns: Sequence[str], names: Iterable[str]) -> frozenset[str]:
    """Returns the names of the frozen parameters.

    Args:
        patterns: the patterns and groups, see the module.
        names: the names of all parameters.

    Raises:
        UserError: for a pattern that matches no name, and if no parameter is left to train.
    """
    names = list(names)
    frozen: set[str] = set()
    for pattern in _expanded(patterns):
        glob = pattern.removeprefix("!")
        matched = {name for name in names if _matches(glob, name)}
        if not matched:
            raise UserError(_no_match(pattern, glob, names))
        frozen = frozen - matched if pattern.startswith("!") else frozen | matched
    if patterns and len(frozen) == len(names):
        raise UserError(
            f"Train.frozen = {tuple(patterns)} leaves no parameter to train: add what is to be "
            "trained after a '!', such as '!router_kernel'"
        )
    return frozenset(frozen)


def _expanded(patterns: Sequence[str]) -> Iterator[str]:
    """Yields the patterns, those of a group in its place."""
    for pattern in patterns:
        group = pattern.removeprefix("!")
        if group not in GROUPS:
            yield pattern
        elif group == pattern:
            yield from GROUPS[group]
        elif len(GROUPS[group]) == 1:
            yield f"!{GROUPS[group][0]}"
        else:
            raise UserError(
                f"Train.frozen has {pattern!r}: after '!' stands a part of the model, such as "
                f"{group.removeprefix('all_but_')!r}, and not all but one"
            )


def _matches(glob: str, name: str) -> bool:
    return any(fnmatch.fnmatchcase(part, glob) for part in _runs(name))


def _runs(name: str) -> Iterator[str]:
    """Yields every run of consecutive components of a name."""
    parts = name.split("/")
    for first in range(len(parts)):
        for end in range(first + 1, len(parts) + 1):
            yield "/".join(parts[first:end])


def _no_match(pattern: str, glob: str, names: Sequence[str]) -> str:
    # With as many components as the pattern has; those of the tree's upper levels say little.
    length = glob.count("/") + 1
    candidates = {run for name in names for run in _runs(name) if run.count("/") + 1 == length}
    components = {part for name in names for part in name.split("/")}
    known = sorted(part for part in components if not part.isdigit())
    return (
        f"Train.frozen has {pattern!r}, which matches the name of no parameter of this model."
        f"{nearest(glob, sorted({*candidates, *GROUPS}))} Names consist of: {', '.join(known)}; "
        f"groups: {', '.join(GROUPS)}"
    )
