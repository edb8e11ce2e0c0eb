"""Gin: finding, reading, checking and printing configurations, with errors people can act on.

Gin accepts some mistakes silently (a macro that nothing uses) and explains others badly; here
each is one line that names the nearest right name.
"""

import ast
import contextlib
import functools
import importlib.resources
import inspect
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin

from moe_jax import gin_imports, gin_places, settings
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError, combined, nearest
from moe_jax.gin_sources import Sources
from moe_jax.settings import Mistake, Undefined, Unusable, any_unusable, mistakes
from moe_jax.settings.reading import Place, Places, Reader

_MODULE, _MACRO = "moe_jax", "gin.macro"
# A gin reference (@Name, @Name(), %MACRO), alone or inside a list.
_REFERENCE = re.compile(r"(^|[\[({, ])[@%][A-Za-z]")


# Mistakes that were made inside `collect`; None outside of it.
_found: list[Mistake] | None = None
# Where values were set in what was parsed last.
_places: Places = {}


def register(name: str, target: Callable[..., Any]) -> None:
    """Makes a class or function configurable as `name` in gin files, and leaves it as it is.

    Its values are checked against their annotations (`moe_jax.settings`).
    """
    settings.register(name, target)
    gin.register(name, module=_MODULE)(_checking(name, target))


def config_root() -> Path:
    """Returns the directory of the configurations in the package."""
    return Path(str(importlib.resources.files(_MODULE) / "configs"))


def shipped() -> list[str]:
    """Returns the configurations in the package, as `--gin_file` takes them."""
    root = config_root()
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.gin"))


def binding(argument: str) -> str:
    """Turns the NAME=VALUE of `--gin.NAME=VALUE` into a line of gin.

    A value that is neither a Python literal nor a gin reference is taken as a text, so that the
    shell's quotes need no second pair inside.

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
    """Lets what is inside go on after a mistake, and raises all that were made at its end.

    Raises:
        UserError: with the mistakes, one in a line.
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
    _places.clear()
    places = ["", *source.search_paths, str(config_root())]
    with collect():
        lines = {}
        for argument in source.bindings:
            try:
                lines[argument] = binding(argument)
            except UserError as error:
                _note([Mistake(str(error), "reading")])
        sources = Sources(places, source.run_config)
        is_checked = _check_sources(sources, source, list(lines.values()))
        # The texts that were checked, looked for in the same places. Without the check nothing is
        # imported: what is wrong is said all the same.
        texts = sources.texts if is_checked else None
        reader = Reader(places, _explained, _no_file, texts, is_checked)
        for file in source.files:
            reader.read_file(file)
        for argument, line in lines.items():
            shown = argument if len(argument) <= 60 else f"{argument[:57]}..."
            reader.read_binding(line, f"--gin.{shown}")
        _places.update(reader.places)
        _note(reader.mistakes)
        gin.config._set_config_is_locked(True)


def _check_sources(sources: Sources, source: ConfigSource, lines: Sequence[str]) -> bool:
    """Checks what a configuration may do; returns False if it cannot be read that far.

    Raises:
        UserError: for what it may not do.
    """
    run = source.run_config
    try:
        statements = sources.lines(source.files, lines)
    except (UserError, SyntaxError, ValueError) as error:
        if run is not None:
            raise UserError(" ".join(str(error).split())) from None
        return False
    gin_imports.check(statements, run)
    if run is not None:
        gin_places.check(statements, run, _shipped_texts())
    return True


def _no_file(file: str, where: str) -> str:
    return (
        f"there is no gin file {file!r}, neither here ({os.getcwd()}) nor in the package's "
        f"configurations{where}.{nearest(file, shipped())} `moe-jax config list` shows them."
    )


def build(name: str) -> Any:
    """Builds the configured object `name`.

    Raises:
        UserError: for values that are missing, or that the object refuses.
    """
    with collect(), _undefined_macros():
        try:
            return gin.get_configurable(name)()
        except RecursionError:
            raise UserError(_circle()) from None
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(_explained(error, "")) from error


def _checking(name: str, target: Callable[..., Any]) -> Callable[..., Any]:
    """Makes what gin calls for `@NAME()`: notes mistakes, and goes on with `Unusable`."""

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
        _note(found)
        return Unusable()

    functools.update_wrapper(make, target, updated=())
    make.__signature__ = inspect.signature(target)  # type: ignore[attr-defined]
    make.settings_name = name  # type: ignore[attr-defined]
    return make


def _where(scope: Sequence[str], name: str, parameter: str) -> str:
    """Returns where the value of a parameter was set, in parentheses; through a macro, that."""
    for depth in range(len(scope), -1, -1):
        key = ("/".join(scope[:depth]), f"{_MODULE}.{name}")
        if parameter not in gin.config._CONFIG.get(key, {}):
            continue
        value = gin.config._CONFIG[key][parameter]
        is_reference = isinstance(value, gin.config.ConfigurableReference)
        if is_reference and _is_macro(value.config_key[1]):
            macro, _ = value.config_key
            if set_at := _places.get((macro, _MACRO, "value")):
                return _in_parentheses(set_at, f"{macro}, ")
        return _in_parentheses(_places.get((*key, parameter)))
    return ""


def _in_parentheses(place: Place | None, before: str = "") -> str:
    return f" ({before}{place.text})" if place else ""


@contextlib.contextmanager
def _undefined_macros() -> Iterator[None]:
    """Gives macros that nothing defines a value that says so, while something is built."""
    defined = set(_macros())
    used = {reference.config_key for reference in _references(gin.config._CONFIG)}
    undefined = [key for key in used if _is_macro(key[1]) and key[0] not in defined]
    for key in undefined:
        gin.config._CONFIG[key] = {"value": Undefined(key[0], nearest(key[0], defined))}
    try:
        yield
    finally:
        for key in undefined:
            del gin.config._CONFIG[key]


def _references(values: Any) -> list[gin.config.ConfigurableReference]:
    return list(gin.config.iterate_references(values))


def _circle() -> str:
    """Returns which values are made of each other."""
    follows = {
        key: [reference.config_key for reference in _references(values) if reference.evaluate]
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
        f"%{scope}" if _is_macro(name) else f"@{name.removeprefix(_MODULE + '.')}()"
        for scope, name in circle
    ]
    return f"values are made of each other in a circle: {' -> '.join(names)}"


def _note(found: Iterable[Mistake]) -> None:
    """Keeps mistakes for the end of `collect`."""
    if _found is not None:
        _found.extend(found)
    elif texts := [mistake.text for mistake in found]:
        raise combined(texts)


def _independent(found: Sequence[Mistake]) -> list[str]:
    """Returns the mistakes that stay, whatever a line that could not be followed was to say."""
    kinds = {mistake.kind for mistake in found}
    dropped: set[str] = set()
    if kinds & {"reading", "broken"}:
        dropped |= {"missing", "unused"}
    if "broken" in kinds:
        dropped |= {"rule"}
    # A macro that several settings take is wrong once.
    once = {(m.kind, m.where or m.text): m.text for m in reversed(found) if m.kind not in dropped}
    return list(reversed(once.values()))


def check_macros(bindings: Sequence[str] = ()) -> None:
    """Refuses macros that nothing uses: most likely misspelt.

    Macros of the package's own files may go unused: something set over them takes their place.
    Call it after everything has been built.

    Args:
        bindings: the NAME=VALUE that were parsed over the files; a macro among them must be used.

    Raises:
        UserError: with the nearest macro that is used.
    """
    used = {scope for scope, selector in gin.config._OPERATIVE_CONFIG if _is_macro(selector)}
    replaceable = _shipped_macros() - {b.partition("=")[0].strip() for b in bindings}
    hint = f" Macros in use: {', '.join(sorted(used))}." if used else ""
    _note(
        Mistake(
            f"nothing uses {name!r}{_in_parentheses(_places.get((name, _MACRO, 'value')))}."
            + nearest(name, sorted(used) + configurables())
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
    """Returns the bindings of things that were not built: allowed, but worth a look.

    Only those of the command line and of the user's own files that it names: included files, such
    as the package's, are made to serve several configurations.
    """
    known = gin.config._OPERATIVE_CONFIG
    return sorted(
        f"{selector.removeprefix(_MODULE + '.')}.{name}{_in_parentheses(place)}"
        for (scope, selector, name), place in _places.items()
        if place.is_named and (scope, selector) not in known and not _is_macro(selector)
    )


def operative() -> str:
    """Returns everything that had a say in what was built, as a gin file."""
    return str(gin.operative_config_str())


def configurables() -> list[str]:
    """Returns the names that gin files can configure."""
    names = [selector for selector, _ in gin.config._REGISTRY.items()]
    return sorted(n.removeprefix(_MODULE + ".") for n in names if n.startswith(_MODULE + "."))


def _is_macro(selector: str) -> bool:
    return selector == _MACRO


def _explained(error: Exception, where: str) -> str:
    """Returns a one-line account of one of gin's errors, and where it was."""
    text = str(error)
    if match := re.search(r"No configurable matching '([^']+)'", text):
        name = match[1].split("/")[-1].removeprefix(_MODULE + ".")
        return f"nothing called {name!r} can be configured{where}." + _near_name(name)
    if match := re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text):
        owner = match[1].removeprefix(_MODULE + ".")
        hint = nearest(match[2], _parameters(match[1]))
        return f"{owner} has no parameter {match[2]!r}{where}.{hint}"
    if match := re.search(r"No configurable matching reference '@([^'()]+)", text):
        return f"nothing is called @{match[1]}{where}." + _near_name(match[1])
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{first}{where}"


def _macros() -> list[str]:
    return sorted(scope for scope, selector in gin.config._CONFIG if _is_macro(selector))


def _near_name(name: str) -> str:
    return nearest(name.split(".")[0], configurables()) or (
        f" Known: {', '.join(configurables())}."
    )


def _parameters(selector: str) -> Iterable[str]:
    target = gin.config._REGISTRY.get_match(selector).wrapped
    return list(inspect.signature(target).parameters)
