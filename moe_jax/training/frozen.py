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
| the experts only       | `('*', '!experts')`        |
| the routers only       | `('*', '!router_kernel')`  |
"""

import fnmatch
from collections.abc import Iterable, Iterator, Sequence

from moe_jax.errors import UserError, nearest


def frozen_names(patterns: Sequence[str], names: Iterable[str]) -> frozenset[str]:
    """Returns the names of the frozen parameters.

    Args:
        patterns: the patterns, see the module.
        names: the names of all parameters.

    Raises:
        UserError: for a pattern that matches no name, and if no parameter is left to train.
    """
    names = list(names)
    frozen: set[str] = set()
    for pattern in patterns:
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
        f"{nearest(glob, sorted(candidates))} Names consist of: {', '.join(known)}"
    )
