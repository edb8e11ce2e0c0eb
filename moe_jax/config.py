"""Gin: finding, reading, checking and printing configurations, with errors people can act on.

Gin accepts some mistakes silently (a macro that nothing uses) and explains others badly; here
each is one line that names the nearest right name.
"""

import ast
import importlib.resources
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gin

from moe_jax import gin_imports, gin_places
from moe_jax.errors import UserError, nearest
from moe_jax.gin_sources import Sources, is_file

_MODULE = "moe_jax"
# A gin reference (@Name, @Name(), %MACRO), alone or inside a list.
_REFERENCE = re.compile(r"(^|[\[({, ])[@%][A-Za-z]")


def register(name: str, target: Callable[..., Any]) -> None:
    """Makes a class or function configurable as `name` in gin files, and leaves it as it is."""
    gin.register(name, module=_MODULE)(target)


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
    if not _REFERENCE.search(value):
        try:
            ast.literal_eval(value)
        except (ValueError, SyntaxError):
            if value[:1] in tuple("[({'\""):
                raise UserError(f"--gin.{argument}: the value is not valid Python") from None
            value = repr(value)
    return f"{name.strip()} = {value}"


def parse(
    files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    run: str | None = None,
) -> None:
    """Reads gin files, later ones over earlier ones, then single bindings over them.

    Files are looked for as given, in `search_paths`, and in the package's configurations. What they
    import, and which names they use, is checked before gin acts on any of it: see `gin_imports`.

    Args:
        files: gin files.
        bindings: NAME=VALUE, over them.
        search_paths: directories.
        run: the file among them that belongs to a run directory, which may come from anywhere.

    Raises:
        UserError: for a file, a name or a value that cannot be, or that may not be.
    """
    gin.clear_config()
    for file in files:
        _check_exists(file, search_paths)
    places = ["", *search_paths, str(config_root())]
    sources = Sources(places, run)
    lines = [binding(b) for b in bindings]
    logger = logging.getLogger()
    level = logger.level
    try:
        # Gin logs an error for every place in which a file is not.
        logger.setLevel(logging.CRITICAL)
        statements = sources.lines(files, lines)
        gin_imports.check(statements, run)
        if run is not None:
            gin_places.check(statements, run, _shipped_texts())
        # The texts that were checked and no others, looked for in the same places.
        gin.config._FILE_READERS[:] = [(sources.open, sources.is_file)]
        gin.config._LOCATION_PREFIXES[:] = places
        gin.parse_config_files_and_bindings(list(files), lines, print_includes_and_imports=False)
    except UserError:
        raise
    except Exception as error:
        raise _explained(error) from error
    finally:
        logger.setLevel(level)


def _check_exists(file: str, search_paths: Sequence[str]) -> None:
    places = (".", *search_paths, str(config_root()))
    if "://" in file or any(is_file(os.path.join(place, file)) for place in places):
        return
    raise UserError(
        f"there is no gin file {file!r}, neither here ({os.getcwd()}) nor in the package's "
        f"configurations.{nearest(file, shipped())} `moe-jax config list` shows them."
    )


def build(name: str) -> Any:
    """Builds the configured object `name`.

    Raises:
        UserError: for a required value that is missing, or one that the object refuses.
    """
    try:
        return gin.get_configurable(name)()
    except UserError as error:
        # Gin appends where it was called from.
        raise UserError(str(error).split("\n  In call to configurable")[0]) from None
    except (TypeError, ValueError, RuntimeError) as error:
        raise _explained(error) from error


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
    for name in _macros():
        if name not in used | replaceable:
            raise UserError(
                f"nothing uses {name!r}."
                + nearest(name, sorted(used) + configurables())
                + (f" Macros in use: {', '.join(sorted(used))}." if used else "")
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
    """Returns the bindings of things that were not built: allowed, but worth a look."""
    known = gin.config._OPERATIVE_CONFIG
    return sorted(
        f"{selector.removeprefix(_MODULE + '.')}.{name}"
        for (scope, selector), values in gin.config._CONFIG.items()
        if (scope, selector) not in known and not _is_macro(selector)
        for name in values
    )


def operative() -> str:
    """Returns everything that had a say in what was built, as a gin file."""
    return str(gin.operative_config_str())


def configurables() -> list[str]:
    """Returns the names that gin files can configure."""
    names = [selector for selector, _ in gin.config._REGISTRY.items()]
    return sorted(n.removeprefix(_MODULE + ".") for n in names if n.startswith(_MODULE + "."))


def _is_macro(selector: str) -> bool:
    return selector == "gin.macro"


def _explained(error: Exception) -> UserError:
    """Returns a one-line account of one of gin's errors."""
    text = str(error)
    where = _where(text)
    if match := re.search(r"No configurable matching '([^']+)'", text):
        name = match[1].split("/")[-1].removeprefix(_MODULE + ".")
        return UserError(f"nothing called {name!r} can be configured{where}." + _near_name(name))
    if match := re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text):
        owner = match[1].removeprefix(_MODULE + ".")
        hint = nearest(match[2], _parameters(match[1]))
        return UserError(f"{owner} has no parameter {match[2]!r}{where}.{hint}")
    if match := re.search(
        r"Required bindings for `([^`]+)` not provided in config: (\[.*?\])", text
    ):
        return UserError(f"{match[1]} needs a value for {', '.join(ast.literal_eval(match[2]))}")
    if match := re.search(
        r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)", text
    ):
        owner = re.search(r"In call to configurable '([^']+)'", text)
        return UserError(f"{owner[1] if owner else 'a value'} needs a value for {match[1]}{where}")
    if match := re.search(r"No configurable matching reference '@([^'()]+)", text):
        return UserError(f"nothing is called @{match[1]}{where}." + _near_name(match[1]))
    if match := re.search(r"No bindings specified for '([^']+)/gin.macro'", text):
        return UserError(f"nothing defines the macro %{match[1]}.{nearest(match[1], _macros())}")
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return UserError(f"{first}{where}")


def _where(text: str) -> str:
    match = re.search(r'In (?:file|bindings string) "?([^",\n]*)"?, line (\d+)', text)
    if not match:
        return ""
    return f" ({match[1]}, line {match[2]})" if match[1] else " (in a --gin.NAME=VALUE)"


def _macros() -> list[str]:
    return sorted(scope for scope, selector in gin.config._CONFIG if _is_macro(selector))


def _near_name(name: str) -> str:
    return nearest(name.split(".")[0], configurables()) or (
        f" Known: {', '.join(configurables())}."
    )


def _parameters(selector: str) -> Iterable[str]:
    target = gin.config._REGISTRY.get_match(selector).wrapped
    return list(inspect.signature(target).parameters)
