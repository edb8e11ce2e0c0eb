"""Configurations in gin files: registered, parsed, checked, built and printed.

All mistakes are collected and raised as one error, with a line for each that names the nearest
right name, also those that gin accepts silently, such as a macro that nothing uses.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib.resources
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin

from moe_jax import gin_imports, gin_network_paths, nested_settings, settings
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined, nearest
from moe_jax.gin_errors import MACRO, explain, explain_circle, references
from moe_jax.gin_reader import GinReader, SourceLocation, SourceLocations
from moe_jax.gin_registry import PACKAGE, configurable_names, gin_module, selector_of
from moe_jax.gin_statements import StatementReader
from moe_jax.settings import Mistake, Undefined, Unusable, any_unusable, mistakes

_MODULE, _MISSING = "moe_jax", dataclasses.MISSING
# A gin reference (@Name, @Name(), %MACRO), alone or inside a list.
_REFERENCE = re.compile(r"(^|[\[({, ])[@%][A-Za-z]")


# Mistakes found inside `collect`; None outside of it.
_found: list[Mistake] | None = None
# Locations of the values that were parsed last.
locations: SourceLocations = {}


def register(name: str, target: Callable[..., Any]) -> None:
    """Makes a class or function configurable as `name` in gin files.

    The class or function itself is not changed. Its configured values are checked against their
    annotations (`moe_jax.settings`). Registering a class or function of the same module again
    replaces it, as when a cell of a notebook runs twice.

    Raises:
        ValueError: for a name that another module has registered.
    """
    module = target.__module__
    known = settings.REGISTERED.get(name)
    if known is not None and known.__module__ != module:
        raise ValueError(
            f"{module} registers {name!r}, which {known.__module__} has registered: give it "
            "another name"
        )
    settings.register(name, target)
    # Gin's registry is locked once a configuration has been parsed.
    with gin.unlock_config(), gin.config.interactive_mode():
        gin.register(name, module=gin_module(target))(_checking(name, target))
    gin_imports.note_registered(selector_of(name))


def config_root() -> Path:
    """Returns the directory of the package's gin files."""
    return Path(str(importlib.resources.files(_MODULE) / "configs"))


def shipped() -> list[str]:
    """Returns the package's gin files, as `--gin_file` takes them."""
    root = config_root()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.gin"))


def binding(argument: str) -> str:
    """Converts NAME=VALUE from the command line into a gin statement.

    A value that is neither a Python literal nor a gin reference is a string, so that it needs no
    quotes inside the shell's own.

    Raises:
        UserError: without a `=`.
    """
    name, equals, value = argument.partition("=")
    if not equals or not name:
        raise UserError(f"--gin.{argument} has no value; expected --gin.NAME=VALUE")
    value = value.strip()
    if value[:1] not in tuple("@%[({'\"") or not _REFERENCE.search(value):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            if value[:1] in tuple("[({'\""):
                raise UserError(f"--gin.{argument}: the value is not valid Python") from None
            value = repr(value)
    return f"{name.strip()} = {value}"


@contextlib.contextmanager
def collect() -> Iterator[None]:
    """Collects the mistakes found inside the context and raises them together at its end.

    Raises:
        UserError: for the mistakes, one in a line.
    """
    global _found
    if _found is not None:
        yield
        return
    found = _found = []
    try:
        yield
    except UserError as error:
        found.append(Mistake(str(error), "rule"))
    finally:
        _found = None
    if found:
        raise combined(_independent(found))


def parse(source: ConfigSource) -> None:
    """Parses gin files, later ones over earlier ones, then single bindings over them.

    Files are looked up as given, in the search paths, and in the package's configurations. Imports
    and names are checked before gin acts on any statement: see `gin_imports`.

    Raises:
        UserError: for files, names and values that are not valid.
    """
    gin.clear_config()
    locations.clear()
    directories = ["", *source.search_paths, str(config_root())]
    with collect():
        lines = {}
        for argument in source.bindings:
            try:
                lines[argument] = binding(argument)
            except UserError as error:
                note([Mistake(str(error), "reading")])
        statements = StatementReader(directories, source.run_config)
        is_checked = _check_permissions(statements, source, list(lines.values()))
        # Gin is given the texts that were checked. If they could not be checked nothing is
        # imported, and the mistakes are still reported.
        texts = statements.texts if is_checked else None
        reader = GinReader(directories, explain, _no_file, texts, is_checked)
        for file in source.files:
            reader.read_file(file)
        for argument, line in lines.items():
            shown = argument if len(argument) <= 60 else f"{argument[:57]}..."
            reader.read_binding(line, f"--gin.{shown}")
        locations.update(reader.locations)
        note(reader.mistakes)
        gin.config._set_config_is_locked(True)


def _check_permissions(
    reader: StatementReader, source: ConfigSource, bindings: Sequence[str]
) -> bool:
    """Checks the permissions of a configuration; returns False if it cannot be parsed.

    Raises:
        UserError: for a statement that is not permitted.
    """
    run = source.run_config
    try:
        statements = reader.statements(source.files, bindings)
    except (UserError, SyntaxError, ValueError) as error:
        if run is not None:
            raise UserError(" ".join(str(error).split())) from None
        return False
    gin_imports.check(statements, run)
    if run is not None:
        gin_network_paths.check(statements, run, _shipped_texts())
    return True


def _no_file(file: str, where: str) -> str:
    return (
        f"there is no gin file {file!r}, neither here ({os.getcwd()}) nor in the package's "
        f"configurations{where}.{nearest(file, shipped())} `moe-jax config list` shows them."
    )


def build(name: str) -> Any:
    """Builds the configured object `name`.

    Raises:
        UserError: for missing or invalid values.
    """
    nested_settings.fill(name, selector_of)
    with collect(), _undefined_macros():
        try:
            return gin.get_configurable(name)()
        except RecursionError:
            raise UserError(explain_circle()) from None
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(explain(error, "")) from error


def _checking(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a configurable: `@NAME()` collects mistakes and returns `Unusable` for them."""

    def make(**values: Any) -> Any:
        scope = gin.current_scope()
        required = [p for p, value in values.items() if value is gin.REQUIRED]
        values |= dict.fromkeys(required, Unusable())
        found = [
            Mistake(f"{name}.{p} needs a value", "missing", _where(scope, name, p))
            for p in required
        ]
        found += mistakes(target, values, lambda parameter: _where(scope, name, parameter))
        if not found and not any_unusable(values.values()):
            try:
                return target(**values)
            except UserError as error:
                found = [Mistake(str(error), "rule")]
        note(found)
        return Unusable()

    functools.update_wrapper(make, target, updated=())
    # Gin is to take the signature, not that of the constructor behind it.
    del make.__wrapped__  # type: ignore[attr-defined]
    make.__signature__ = _signature(target)  # type: ignore[attr-defined]
    make.settings_name = name  # type: ignore[attr-defined]
    return make


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    """Returns the parameters of a class or function; of a dataclass, whatever wraps its methods."""
    if not dataclasses.is_dataclass(target):
        return inspect.signature(target)
    found = []
    for field in dataclasses.fields(target):
        if not field.init:
            continue
        default = inspect.Parameter.empty if field.default is _MISSING else field.default
        if field.default_factory is not _MISSING:
            default = object()  # Gin does not print it.
        found.append(inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default))
    return inspect.Signature(found)


def _where(scope: Sequence[str], name: str, parameter: str) -> str:
    """Returns the location of a parameter's value, or of its macro, in parentheses."""
    for depth in range(len(scope), -1, -1):
        key = ("/".join(scope[:depth]), selector_of(name))
        if parameter not in gin.config._CONFIG.get(key, {}):
            continue
        value = gin.config._CONFIG[key][parameter]
        is_reference = isinstance(value, gin.config.ConfigurableReference)
        if is_reference and _is_macro(value.config_key[1]):
            macro, _ = value.config_key
            if set_at := locations.get((macro, MACRO, "value")):
                return in_parentheses(set_at, f"{macro}, ")
        return in_parentheses(locations.get((*key, parameter)))
    return ""


def in_parentheses(location: SourceLocation | None, before: str = "") -> str:
    """Returns a location for the end of a message, such as ` (my.gin, line 3)`."""
    return f" ({before}{location.text})" if location else ""


@contextlib.contextmanager
def _undefined_macros() -> Iterator[None]:
    """Defines undefined macros as `Undefined` inside the context."""
    defined = set(_macros())
    used = {reference.config_key for reference in references(gin.config._CONFIG)}
    undefined = [key for key in used if _is_macro(key[1]) and key[0] not in defined]
    for key in undefined:
        gin.config._CONFIG[key] = {"value": Undefined(key[0], nearest(key[0], defined))}
    try:
        yield
    finally:
        for key in undefined:
            del gin.config._CONFIG[key]


def note(found: Iterable[Mistake]) -> None:
    """Collects mistakes; raises them outside of `collect`."""
    if _found is not None:
        _found.extend(found)
    elif texts := [mistake.text for mistake in found]:
        raise combined(texts)


def _independent(found: Sequence[Mistake]) -> list[str]:
    """Returns the mistakes that do not follow from statements that could not be read."""
    kinds = {mistake.kind for mistake in found}
    dropped: set[str] = set()
    if kinds & {"reading", "broken"}:
        dropped |= {"missing", "unused"}
    if "broken" in kinds:
        dropped |= {"rule"}
    # A wrong macro that several settings use is reported once.
    once = {(m.kind, m.where or m.text): m.text for m in reversed(found) if m.kind not in dropped}
    return list(reversed(once.values()))


def check_macros(bindings: Sequence[str] = ()) -> None:
    """Refuses macros that nothing uses, which are most likely misspelt.

    Macros of the package's own files, and of the configuration of a run that others override, may
    be unused, as other values can override their uses. Call it after everything has been built.

    Args:
        bindings: the NAME=VALUE of the command line; macros among them must be used.

    Raises:
        UserError: for unused macros, with the nearest macro that is used.
    """
    used = {scope for scope, selector in gin.config._OPERATIVE_CONFIG if _is_macro(selector)}
    saved = {s for (s, kind, _), at in locations.items() if _is_macro(kind) and at.is_saved}
    replaceable = (_shipped_macros() | saved) - {b.partition("=")[0].strip() for b in bindings}
    hint = f" Macros in use: {', '.join(sorted(used))}." if used else ""
    note(
        Mistake(
            f"nothing uses {name!r}{in_parentheses(locations.get((name, MACRO, 'value')))}."
            + nearest(name, sorted(used) + configurable_names())
            + hint,
            "unused",
        )
        for name in _macros()
        if name not in used | replaceable
    )


def _shipped_macros() -> set[str]:
    return {
        name
        for text in _shipped_texts()
        for name in re.findall(r"^([A-Z_]+) =", text, re.MULTILINE)
    }


def _shipped_texts() -> list[str]:
    return [(config_root() / name).read_text() for name in shipped()]


def unused() -> list[str]:
    """Returns the bindings of objects that were not built, which have no effect.

    Only bindings of the command line and of the user's files that it names are returned: included
    files may serve several configurations. Nor those of the configuration of a run, which others
    override.
    """
    known = gin.config._OPERATIVE_CONFIG
    return sorted(
        f"{selector.removeprefix(PACKAGE)}.{name}{in_parentheses(location)}"
        for (scope, selector, name), location in locations.items()
        if location.is_named
        and not location.is_saved
        and (scope, selector) not in known
        and not _is_macro(selector)
    )


def operative() -> str:
    """Returns all values that the built objects use, as a gin file."""
    return str(gin.operative_config_str())


def _is_macro(selector: str) -> bool:
    return selector == MACRO


def _macros() -> list[str]:
    return sorted(scope for scope, selector in gin.config._CONFIG if _is_macro(selector))
