"""Gin files that configure a plan of many runs, such as a study, rather than one run."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from etils import epath

from moe_jax import config
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError
from moe_jax.gin_statements import StatementReader


@dataclasses.dataclass(frozen=True)
class PlanFiles:
    """A plan with what else its gin files and the command line say.

    Attributes:
        plan: the settings of the plan.
        bindings: bindings of the command line that are not the plan's: they apply to all runs.
        search_paths: directories in which gin files of the runs are looked up, those of the plan's
            files among them.
        text: text of the gin files; each begins with a comment line with its name.
    """

    plan: Any
    bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    text: str


def is_file(item: str) -> bool:
    """Returns whether an item of a plan is a gin file rather than a binding."""
    return item.endswith(".gin") and "=" not in item


def read_plan(
    source: ConfigSource,
    name: str,
    items: Callable[[Any], Iterable[str]],
    places: str,
    macros: Sequence[str] = (),
) -> PlanFiles:
    """Reads a plan; its bindings apply to it, all others of the command line to the runs.

    Args:
        source: gin files and bindings.
        name: name of the plan's settings, such as `Study`.
        items: from the plan to its items, whose files belong to its text.
        places: the settings that have items, for messages.
        macros: macros of the plan's own.

    Raises:
        UserError: for all mistakes in the plan, one in a line.
    """
    own = tuple(b for b in source.bindings if _is_own(b, name, macros))
    others = tuple(b for b in source.bindings if b not in own)
    with config.collect():
        config.parse(dataclasses.replace(source, bindings=own))
        plan = config.build(name)
        config.check_macros(own)
    if stray := config.unused():
        example = f"{stray[0].split(' (')[0]}=..."
        raise UserError(
            f"the gin file sets {name}.*, and {', '.join(stray)} is not: settings of the runs are "
            f"items of {places}, such as {example!r}"
        )
    found = [_find(file, source.search_paths) for file in source.files]
    beside = [str(path.parent) for path in found if str(path.parent) not in ("", ".")]
    root = str(config.config_root())
    beside = [path for path in dict.fromkeys(beside) if not path.startswith(root)]
    paths = (*source.search_paths, *beside)
    return PlanFiles(plan, others, paths, _texts(source.files, tuple(items(plan)), paths))


def _is_own(binding: str, name: str, macros: Sequence[str]) -> bool:
    setting = binding.partition("=")[0].strip()
    return setting.startswith(f"{name}.") or setting in macros


def _texts(files: Sequence[str], items: Sequence[str], search_paths: Sequence[str]) -> str:
    """Returns the text of a plan's gin files, of those of its items, and of all they include.

    Files of the package are left out, unless they are the plan's own or included by these.
    """
    root = str(config.config_root())
    directories = ["", *search_paths, root]
    texts: dict[str, str] = {}
    for file in [*files, *filter(is_file, items)]:
        reader = StatementReader(directories)
        # What cannot be read is said when the runs' configurations are loaded.
        with contextlib.suppress(UserError, SyntaxError, ValueError):
            reader.statements([file], [])
        for path, text in reader.texts.items():
            if file in files or not path.startswith(root):
                texts.setdefault(os.path.normpath(path), text)
    parts = []
    for path, text in texts.items():
        inside = [d for d in (root, *search_paths) if d and path.startswith(os.path.join(d, ""))]
        name = os.path.relpath(path, max(inside, key=len)) if inside else path
        parts.append(f"# {name}\n{text}")
    return "\n".join(parts)


def _find(file: str, search_paths: tuple[str, ...]) -> epath.Path:
    for directory in ("", *search_paths, str(config.config_root())):
        path = epath.Path(directory) / file if directory else epath.Path(file)
        if path.exists():
            return path
    raise UserError(f"there is no gin file {file!r}")
