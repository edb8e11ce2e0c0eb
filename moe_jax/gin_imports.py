"""What gin files may import, and which names they may use: a gin file must not run code.

A gin file describes; it does not run. Without permission it reaches what this package registers
with gin and nothing else. `--allow_imports=my_tasks`, or `MOE_JAX_ALLOW_IMPORTS` in the user's
environment, permits a module: `import my_tasks` then works, and so do the names that the module
registers. The configuration of a run directory, which may come from anywhere, goes by the flag
alone. Gin's dynamic registration, by which a file can name any function of any module, is always
refused.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence

import gin
from gin.config_parser import BindingStatement, BlockDeclaration, ImportStatement

from moe_jax.errors import UserError
from moe_jax.gin_sources import Line, Reference, leaves

VARIABLE = "MOE_JAX_ALLOW_IMPORTS"
FLAG = "--allow_imports"

_OWN = "moe_jax"
# Modules of the package that act when they are imported, or are for the command line only.
_NOT_FOR_FILES = ("moe_jax.cli", "moe_jax.commands")
_BUILTIN = ("gin.macro", "gin.constant", "gin.singleton")
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

# The modules that the command line permits, and the names that each import has registered.
_allowed: list[str] = []
_registered_by: dict[str, set[str]] = {}


@contextlib.contextmanager
def allowing(modules: Iterable[str]) -> Iterator[None]:
    """Permits gin files to import modules, as `--allow_imports` does.

    Args:
        modules: names, each permitting its submodules too; commas may separate several.

    Raises:
        UserError: for what is no name of a module.
    """
    before = list(_allowed)
    _allowed.extend(_names(modules, FLAG))
    try:
        yield
    finally:
        _allowed[:] = before


def _names(texts: Iterable[str], where: str) -> list[str]:
    names = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    for name in names:
        if not _MODULE_NAME.fullmatch(name) or name.endswith(".py"):
            raise UserError(f"{where} takes names of modules, such as my_tasks, not {name!r}")
        if name.partition(".")[0] == "__gin__":
            raise UserError(f"{where} cannot permit gin's dynamic registration")
    return names


def permitted(of_a_run: bool = False) -> list[str]:
    """Returns the modules that may be imported besides the package's.

    Args:
        of_a_run: by the configuration of a run directory.

    Raises:
        UserError: for a name in `MOE_JAX_ALLOW_IMPORTS` that is none.
    """
    from_environment = [] if of_a_run else _names([os.environ.get(VARIABLE, "")], VARIABLE)
    return [*_allowed, *from_environment]


def as_environment() -> dict[str, str]:
    """Returns the variables that give a process of our own the same permissions."""
    names = permitted()
    return {VARIABLE: ",".join(names)} if names else {}


def check(lines: Sequence[Line], run: str | None = None) -> None:
    """Refuses a configuration that would run code, and imports what it may import.

    Nothing is imported unless everything may be.

    Args:
        lines: every statement of the configuration.
        run: the file among the roots of the lines that is a run directory's own.

    Raises:
        UserError: for an import that is not permitted or fails, and for a name that neither the
            package nor a permitted module has registered.
    """
    imports = [line for line in lines if isinstance(line.statement, ImportStatement)]
    refused = []
    for line in imports:
        name = line.statement.module
        if name.partition(".")[0] == "__gin__":
            raise UserError(
                f"{line.statement.format()!r} was refused ({line.where}): with it a gin file can "
                "call any function there is. Register what the file needs in a module of your own "
                f"(gin.register), import that, and permit it with {FLAG}"
            )
        if not _is_own(name) and not _is_under(name, permitted(line.root == run)):
            refused.append(line)
    if refused:
        raise _refusal(refused, run)
    for line in imports:
        if not _is_own(line.statement.module):
            _import(line, run)
    for line in lines:
        names = permitted(line.root == run)
        for selector in _selectors(line):
            _check_reachable(selector, line, names)


def is_available(selector: str) -> bool:
    """Returns whether gin files of the user may use a registered name."""
    return selector not in _BUILTIN and _is_reachable(selector, permitted())


def _refusal(lines: list[Line], run: str | None) -> UserError:
    """Returns the error for imports that are not permitted, with the flag that would."""
    first, modules = lines[0], dict.fromkeys(line.statement.module for line in lines)
    more = f" and {len(lines) - 1} more were" if len(lines) > 1 else " was"
    advice = f"If you trust {'it' if len(modules) == 1 else 'them'}, add {FLAG}={','.join(modules)}"
    if first.root == run and run is not None:
        why = "the configuration of a run imports only what this command's flag permits"
    else:
        why = f"a gin file may run no code but that of {_OWN}"
        advice += f" (or name it in {VARIABLE})"
    return UserError(f"{first.statement.format()!r}{more} refused ({first.where}): {why}. {advice}")


def _is_own(module: str) -> bool:
    return _is_under(module, [_OWN]) and not _is_under(module, _NOT_FOR_FILES)


def _is_under(module: str, names: Iterable[str]) -> bool:
    """Returns whether a module is one of those named, or in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _import(line: Line, run: str | None) -> None:
    """Imports a permitted module, and keeps what it registers with gin."""
    name = line.statement.module
    # A run's own directory is no place for code: it is somebody else's.
    own = [] if line.root == run else [os.path.dirname(os.path.abspath(line.root))]
    places = list(dict.fromkeys([*(own if line.root else []), os.getcwd()]))
    known = name in sys.modules
    if not known:
        _make_findable(name, places)
    before = set(_registry())
    try:
        module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _with_parents(name):
            raise UserError(_not_found(name, error.name or name, line, places)) from None
        raise UserError(
            f"{name} cannot be imported ({line.where}): {type(error).__name__}: {error}"
        ) from error
    _registered_by.setdefault(name, set()).update(set(_registry()) - before)
    if not known:
        where = getattr(module, "__file__", None) or "a directory without __init__.py"
        print(f"moe-jax: imported {name} from {where}", file=sys.stderr)


def _make_findable(name: str, places: list[str]) -> None:
    """Makes a module importable that lies in one of the places.

    A place is searched last, and only if it holds a module that Python would not find without: so
    that no file there takes the place of Python's own modules or of what is installed.
    """
    top = name.partition(".")[0]
    if top in sys.modules or _holds(importlib.util.find_spec(top), name):
        return
    for place in places:
        if _holds(importlib.machinery.PathFinder.find_spec(top, [place]), name):
            sys.path.append(place)
            importlib.invalidate_caches()
            return


def _holds(top: importlib.machinery.ModuleSpec | None, name: str) -> bool:
    """Returns whether what was found for the first part of a name is the module's own.

    A directory without `__init__.py` is found too, whatever it is for: the next part must be in it.
    """
    if top is None or top.origin is not None:
        return top is not None
    _, dot, rest = name.partition(".")
    inner = importlib.machinery.PathFinder.find_spec(
        rest.partition(".")[0], list(top.submodule_search_locations or ())
    )
    return bool(dot) and _holds(inner, rest)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _not_found(name: str, missing: str, line: Line, places: list[str]) -> str:
    top = sys.modules.get(name.partition(".")[0])
    if missing != name.partition(".")[0] and top is not None:
        found = getattr(top, "__file__", None) or top.__name__
        return f"there is no module {missing} in {found} ({line.where})"
    return (
        f"there is no module {missing} ({line.where}); looked in {', '.join(places)} and where "
        "Python looks"
    )


def _registry() -> list[str]:
    return [selector for selector, _ in gin.config._REGISTRY.items()]


def _selectors(line: Line) -> Iterator[str]:
    """Yields the names that a statement uses, without scopes."""
    statement = line.statement
    if isinstance(statement, BlockDeclaration):
        yield statement.selector
    elif isinstance(statement, BindingStatement):
        if statement.arg_name:
            yield statement.selector
        found = (leaf for leaf in leaves(statement.value) if isinstance(leaf, Reference))
        yield from (reference.selector for reference in found if not reference.macro)


def _check_reachable(selector: str, line: Line, modules: list[str]) -> None:
    """Refuses a name that something else in this process has registered with gin."""
    found = gin.config._REGISTRY.matching_selectors(selector)
    # What nothing has registered is gin's to report.
    if not found or any(_is_reachable(name, modules) for name in found):
        return
    owner = gin.config._REGISTRY[found[0]].wrapped.__module__
    raise UserError(
        f"{selector!r} was refused ({line.where}): {owner} registers it, which this configuration "
        f"may not use. If it is meant, import the module in the file and add {FLAG}={owner}"
    )


def _is_reachable(selector: str, modules: list[str]) -> bool:
    if selector in _BUILTIN or selector.startswith(f"{_OWN}."):
        return True
    imported = (names for module, names in _registered_by.items() if _is_under(module, modules))
    if any(selector in names for names in imported):
        return True
    entry = gin.config._REGISTRY[selector]
    owners = (entry.module, getattr(entry.wrapped, "__module__", None))
    return any(owner is not None and _is_under(owner, modules) for owner in owners)
