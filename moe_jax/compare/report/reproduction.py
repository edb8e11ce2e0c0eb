"""What is needed to make a study again: commands, configuration, versions, commit, devices."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moe_jax.compare.report import shell
from moe_jax.compare.report.table import Cell, Table
from moe_jax.compare.results import Comparison


@dataclasses.dataclass(frozen=True)
class Code:
    """A text to copy.

    Attributes:
        label: what it is.
        text: a command or a file.
    """

    label: str
    text: str


def commands(comparison: Comparison) -> tuple[Code, ...]:
    """Returns the command of the study and one for each arm, in which the seed is a variable."""
    found = [Code("The whole study", shell.on_lines(comparison.plan.command))]
    arms = list(comparison.arms.values())
    if comparison.aa is not None:
        arms.append(comparison.aa)
    for arm in arms:
        name = "A/A" if arm is comparison.aa else arm.name
        by_seed = {seed: run.command for seed, run in sorted(arm.runs.items())}
        loop = shell.loop_over_seeds(by_seed)
        if loop is not None:
            found.append(Code(name, loop))
            continue
        for seed, command in by_seed.items():
            found.append(Code(f"{name}, seed {seed}", shell.on_lines(command)))
    return tuple(code for code in found if code.text.strip())


def environments_table(distinct: Sequence[Mapping[str, Any]]) -> Table | None:
    """Returns versions, commit and devices, a column for each distinct environment."""
    environments = [dict(_flat(environment)) for environment in distinct]
    names = list(dict.fromkeys(name for found in environments for name in found))
    if not names:
        return None
    rows = []
    for name in names:
        values = [found.get(name, "") for found in environments]
        differs = len(set(values)) > 1
        cells = [
            Cell(value, is_flagged=differs) if value else Cell("-", "not on record", differs)
            for value in values
        ]
        rows.append((Cell(name), *cells))
    several = len(environments) > 1
    heads = [
        f"environment {number + 1}" if several else "value" for number in range(len(environments))
    ]
    notes = ("The runs were made in several environments; what differs is marked.",)
    caption = "Versions, commit and devices"
    return Table(caption, ("what", *heads), tuple(rows), notes if several else (), is_text=True)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields names such as `packages jax` and their values; empty values are left out."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif isinstance(value, list | tuple):
            if value:
                yield name, ", ".join(str(item) for item in value)
        elif value is not None and str(value):
            yield name, str(value)
