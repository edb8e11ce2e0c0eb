"""Permissions of gin files: modules that they may import and names that they may use.

Without permission a gin file can use only what this package registers with gin.
`--allow_imports=my_tasks`, or `MOE_JAX_ALLOW_IMPORTS` in the user's environment, permits a module:
`import my_tasks` then works, and so do the names that the module registers. The configuration of a
run directory, which is not trusted, is given the permissions of the flag only. Gin's dynamic
registration, by which a file can name any function of any module, is always refused.
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
from moe_jax.gin_statements import Reference, Statement, leaves

VARIABLE = "MOE_JAX_ALLOW_IMPORTS"
FLAG = "--allow_imports"

_OWN = "moe_jax"
# Modules of the package with side effects at import, or for the command line only.
_NOT_FOR_FILES = ("moe_jax.cli", "moe_jax.commands")
_BUILTIN = ("gin.macro", "gin.constant", "gin.singleton")
_MODULE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

# Modules permitted by the command line, and the names that each import has registered.
_allowed: list[str] = []
_registered_by: dict[str, set[str]] = {}
# Names that Python code has registered by `moe_jax.configurable`, not an import of a gin file.
_registered_directly: set[str] = set()
_importing = False


@contextlib.contextmanager
def allowing(modules: Iterable[str]) -> Iterator[None]:
    """Permits gin files to import modules, as `--allow_imports` does.

    Args:
        modules: names, each permitting its submodules too; commas may separate several.

    Raises:
        UserError: for an invalid module name.
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
    """Returns the modules that gin files may import besides the package's own.

    Args:
        of_a_run: for the configuration of a run directory.

    Raises:
        UserError: for an invalid module name in `MOE_JAX_ALLOW_IMPORTS`.
    """
    from_environment = [] if of_a_run else _names([os.environ.get(VARIABLE, "")], VARIABLE)
    return [*_allowed, *from_environment]


def note_registered(selector: str) -> None:
    """Permits a name that the running program itself registers, as a notebook does."""
    if not _importing:
        _registered_directly.add(selector)


def as_environment() -> dict[str, str]:
    """Returns environment variables that give a child process the same permissions."""
    names = permitted()
    return {VARIABLE: ",".join(names)} if names else {}


def check(statements: Sequence[Statement], run: str | None = None) -> None:
    """Refuses a configuration that would run code, and imports its permitted modules.

    Nothing is imported if any import is refused.

    Args:
        statements: every statement of the configuration.
        run: the root of the statements that belong to a run directory.

    Raises:
        UserError: for an import that is not permitted or fails, and for a name that neither the
            package nor a permitted module has registered.
    """
    imports = [s for s in statements if isinstance(s.parsed, ImportStatement)]
    refused = []
    for statement in imports:
        name = statement.parsed.module
        if name.partition(".")[0] == "__gin__":
            raise UserError(
                f"{statement.parsed.format()!r} was refused ({statement.location}): with it a gin "
                "file can call any function there is. Register what the file needs in a module of "
                f"your own (gin.register), import that, and permit it with {FLAG}"
            )
        if not _is_own(name) and not _is_under(name, permitted(statement.root == run)):
            refused.append(statement)
    if refused:
        raise _refusal(refused, run)
    for statement in imports:
        if not _is_own(statement.parsed.module):
            _import(statement, run)
    for statement in statements:
        names = permitted(statement.root == run)
        for selector in _selectors(statement):
            _check_reachable(selector, statement, names)


def is_available(selector: str) -> bool:
    """Returns whether gin files of the user may use a registered name."""
    return selector not in _BUILTIN and _is_reachable(selector, permitted())


def _refusal(refused: list[Statement], run: str | None) -> UserError:
    """Returns the error for imports that are not permitted, with the flag that permits them."""
    first, modules = refused[0], dict.fromkeys(statement.parsed.module for statement in refused)
    more = f" and {len(refused) - 1} more were" if len(refused) > 1 else " was"
    advice = f"If you trust {'it' if len(modules) == 1 else 'them'}, add {FLAG}={','.join(modules)}"
    if first.root == run and run is not None:
        why = "the configuration of a run imports only what this command's flag permits"
    else:
        why = f"a gin file may run no code but that of {_OWN}"
        advice += f" (or name it in {VARIABLE})"
    return UserError(f"{first.parsed.format()!r}{more} refused ({first.location}): {why}. {advice}")


def _is_own(module: str) -> bool:
    return _is_under(module, [_OWN]) and not _is_under(module, _NOT_FOR_FILES)


def _is_under(module: str, names: Iterable[str]) -> bool:
    """Returns whether a module is one of the named modules or a submodule of one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def _import(statement: Statement, run: str | None) -> None:
    """Imports a permitted module, and notes which names it registers with gin."""
    name = statement.parsed.module
    # The directory of a run is not searched for code, as it is not trusted.
    own = [] if statement.root == run else [os.path.dirname(os.path.abspath(statement.root))]
    directories = list(dict.fromkeys([*(own if statement.root else []), os.getcwd()]))
    known = name in sys.modules
    if not known:
        _make_findable(name, directories)
    before = set(_registry())
    try:
        with _import_of_a_gin_file():
            module = importlib.import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in _with_parents(name):
            raise UserError(_not_found(name, error.name or name, statement, directories)) from None
        raise UserError(
            f"{name} cannot be imported ({statement.location}): {type(error).__name__}: {error}"
        ) from error
    _registered_by.setdefault(name, set()).update(set(_registry()) - before)
    if not known:
        where = getattr(module, "__file__", None) or "a directory without __init__.py"
        print(f"moe-jax: imported {name} from {where}", file=sys.stderr)


@contextlib.contextmanager
def _import_of_a_gin_file() -> Iterator[None]:
    global _importing
    _importing = True
    try:
        yield
    finally:
        _importing = False


def _make_findable(name: str, directories: list[str]) -> None:
    """Makes a module in one of the directories importable.

    A directory is searched last, and only for a module that Python would not find otherwise, so
    that no file there can replace a standard or an installed module.
    """
    top = name.partition(".")[0]
    if top in sys.modules or _contains(importlib.util.find_spec(top), name):
        return
    for directory in directories:
        if _contains(importlib.machinery.PathFinder.find_spec(top, [directory]), name):
            sys.path.append(directory)
            importlib.invalidate_caches()
            return


def _contains(top: importlib.machinery.ModuleSpec | None, name: str) -> bool:
    """Returns whether the spec of the first part of a dotted name contains the module.

    Python also finds directories without `__init__.py`, which need not be packages: those must
    contain the next part of the name.
    """
    if top is None or top.origin is not None:
        return top is not None
    _, dot, rest = name.partition(".")
    inner = importlib.machinery.PathFinder.find_spec(
        rest.partition(".")[0], list(top.submodule_search_locations or ())
    )
    return bool(dot) and _contains(inner, rest)


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]


def _not_found(name: str, missing: str, statement: Statement, directories: list[str]) -> str:
    top = sys.modules.get(name.partition(".")[0])
    if missing != name.partition(".")[0] and top is not None:
        found = getattr(top, "__file__", None) or top.__name__
        return f"there is no module {missing} in {found} ({statement.location})"
    return (
        f"there is no module {missing} ({statement.location}); looked in "
        f"{', '.join(directories)} and where Python looks"
    )


def _registry() -> list[str]:
    return [selector for selector, _ in gin.config._REGISTRY.items()]


def _selectors(statement: Statement) -> Iterator[str]:
    """Yields the names that a statement uses, without scopes."""
    parsed = statement.parsed
    if isinstance(parsed, BlockDeclaration):
        yield parsed.selector
    elif isinstance(parsed, BindingStatement):
        if parsed.arg_name:
            yield parsed.selector
        found = (leaf for leaf in leaves(parsed.value) if isinstance(leaf, Reference))
        yield from (reference.selector for reference in found if not reference.macro)


def _check_reachable(selector: str, statement: Statement, modules: list[str]) -> None:
    """Refuses a name that was registered with gin by a module without permission."""
    found = gin.config._REGISTRY.matching_selectors(selector)
    # Gin itself reports names that are not registered.
    if not found or any(_is_reachable(name, modules) for name in found):
        return
    owner = gin.config._REGISTRY[found[0]].wrapped.__module__
    raise UserError(
        f"{selector!r} was refused ({statement.location}): {owner} registers it, which this "
        "configuration may not use. If it is meant, import the module in the file and add "
        f"{FLAG}={owner}"
    )


def _is_reachable(selector: str, modules: list[str]) -> bool:
    if selector in _BUILTIN or selector.startswith(f"{_OWN}."):
        return True
    if selector in _registered_directly:
        return True
    imported = (names for module, names in _registered_by.items() if _is_under(module, modules))
    if any(selector in names for names in imported):
        return True
    entry = gin.config._REGISTRY[selector]
    owners = (entry.module, getattr(entry.wrapped, "__module__", None))
    return any(owner is not None and _is_under(owner, modules) for owner in owners)
