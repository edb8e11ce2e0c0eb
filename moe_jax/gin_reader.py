"""A reader of gin files that collects all mistakes and the source location of every value.

Gin itself stops at the first mistake and does not keep source locations.
"""

import dataclasses
import os
import tokenize
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
from etils import epath
from gin import config_parser

from moe_jax.errors import UserError
from moe_jax.renamed_settings import current_binding
from moe_jax.settings.checked import Mistake, Unusable

# A configuration has some kilobytes; a larger file is none.
_LARGEST_FILE = 4 << 20
# Nested includes can multiply without end.
_MOST_FILES = 1000
_MACRO = "gin.macro"


@dataclasses.dataclass(frozen=True)
class SourceLocation:
    """The source location of a value.

    Attributes:
        text: for messages, such as `my.gin, line 3`.
        is_named: whether it is the command line, or a file of the user that it names.
        is_packaged: whether it is a file of the package.
        is_saved: whether it is the configuration of a run, which has the value of every setting.
    """

    text: str
    is_named: bool
    is_packaged: bool = False
    is_saved: bool = False


# Source locations by scope, name and parameter, in the order in which the values were set.
SourceLocations = dict[tuple[str, str, str], SourceLocation]

# Files of this folder of the package are alternatives: a later one takes back what one before set.
_ALTERNATIVES = "routers"
# Settings that belong to the alternative; those of a saved configuration are not for another one.
_OF_ALTERNATIVES = "moe_jax.Pool"
# Gin writes it before the settings of each object.
_SAVED = "\n# Parameters for "
# Dictionaries whose items are set one by one: a binding adds to those before it.
_MERGED = {("moe_jax.Loss", "weights")}


class _Delegate(gin.config.ParserDelegate):
    """Makes references; an unknown reference is noted, and parsing continues."""

    def __init__(self, note: Callable[[Exception], None]):
        super().__init__()
        self._note = note

    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> Any:
        try:
            return super().configurable_reference(scoped_selector, evaluate)
        except Exception as error:
            self._note(error)
            return Unusable()


class GinReader:
    """Reads gin files and bindings into gin's configuration.

    Args:
        directories: directories in which files are looked up, in this order; the last is the
            package's own.
        explain: returns a one-line message for an error of gin and ` (FILE, line N)`.
        missing: returns the message for a missing file; takes its name and where it was included.
        texts: checked texts of the files by path; no other files are read if it is given.
        imports: whether `import` statements are executed; otherwise they are skipped.

    Attributes:
        mistakes: the mistakes found so far.
        locations: the source locations of all values.
    """

    def __init__(
        self,
        directories: Sequence[str],
        explain: Callable[[Exception, str], str],
        missing: Callable[[str, str], str],
        texts: Mapping[str, str] | None = None,
        imports: bool = True,
    ):
        self.mistakes: list[Mistake] = []
        self.locations: SourceLocations = {}
        self._directories, self._explain, self._missing = directories, explain, missing
        self._package = os.path.join(os.path.realpath(directories[-1]), "")
        self._texts, self._imports, self._files = texts, imports, 0
        # Unknown names of blocks: reported once, not for each line.
        self._unknown: set[str] = set()
        # The chain of included files that are being read: name and real path.
        self._open: list[tuple[str, str]] = []
        # Values set by the alternative in force: location, and the value and location before.
        self._alternative: dict[
            tuple[str, str, str], tuple[SourceLocation, Any, SourceLocation | None]
        ] = {}

    def read_file(self, name: str, where: str = "") -> None:
        """Reads a file and the files that it includes.

        Args:
            name: the name as it was given.
            where: where it was included, such as ` (my.gin, line 3)`.
        """
        try:
            path, text = self._contents(name, where)
        except UserError as error:
            self._note(str(error), "broken")
            return
        if "\0" in text:
            place = len(text.partition("\0")[0].encode())
            what = f"its byte {place} is 0, which no text has"
            self._note(f"{name} is not a gin file: {what}{where}", "broken")
            return
        real = os.path.realpath(path) if "://" not in path else path
        names = [shown for shown, opened in self._open if opened == real]
        if names:
            circle = [shown for shown, _ in self._open]
            circle = [*circle[circle.index(names[0]) :], name]
            how = "itself" if len(circle) == 2 else f"in a circle: {' -> '.join(circle)}"
            self._note(f"{names[0]} includes {how}{where}", "broken")
            return
        self._files += 1
        if self._files > _MOST_FILES:
            if self._files == _MOST_FILES + 1:
                self._note(f"more than {_MOST_FILES} files are included{where}", "broken")
            return
        if self._is_alternative(real) and not self._in_alternative():
            self._take_back()
        self._open.append((name, real))
        try:
            is_packaged = real.startswith(self._package)
            is_named = not is_packaged and len(self._open) == 1
            self._read(text, name, is_named=is_named, is_packaged=is_packaged)
        finally:
            self._open.pop()

    def read_binding(self, line: str, argument: str) -> None:
        """Reads a gin statement that was given as `argument` on the command line."""
        self._read(line, argument, is_named=True, is_argument=True)

    def _contents(self, name: str, where: str) -> tuple[str, str]:
        """Returns the path and the text of a file.

        Raises:
            UserError: if the file cannot be read or is not text.
        """
        if not name:
            raise UserError(f"the name of a gin file is empty{where}")
        remote = "://" in name or os.path.isabs(name)
        paths = [name] if remote else [os.path.join(d, name) for d in self._directories]
        try:
            if self._texts is not None:
                path = next((p for p in paths if p in self._texts), "")
                if not path:
                    raise UserError(self._missing(name, where))
                return path, self._texts[path]
            path = next((p for p in paths if _is_file(p)), "")
            if not path:
                if any(epath.Path(p).is_dir() for p in paths):
                    raise UserError(f"{name} is a directory; a gin file was expected{where}")
                raise UserError(self._missing(name, where))
            size = epath.Path(path).stat().length
            if size > _LARGEST_FILE:
                raise UserError(f"{name} has {size:,} bytes, which is no gin file{where}")
            data = epath.Path(path).read_bytes()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
            raise UserError(f"the gin file {name!r} cannot be read: {reason}{where}") from None
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name} is not a gin file: its byte {error.start} is not UTF-8 text{where}"
            ) from None
        return path, text.replace("\r\n", "\n").replace("\r", "\n")

    def _is_alternative(self, real: str) -> bool:
        return real.startswith(os.path.join(self._package, _ALTERNATIVES, ""))

    def _in_alternative(self) -> bool:
        return any(self._is_alternative(real) for _, real in self._open)

    def _take_back(self) -> None:
        """Restores the values before the alternative in force, unless they were set after it.

        Of a saved configuration, which has the values of the alternative among all others, those
        that would also be read by another one are dropped.
        """
        for key, (location, value, location_before) in self._alternative.items():
            if self.locations.get(key) is not location:
                continue
            bindings = gin.config._CONFIG[key[:2]]
            del bindings[key[2]], self.locations[key]
            if location_before is not None:
                bindings[key[2]], self.locations[key] = value, location_before
        self._alternative = {}
        for key, location in list(self.locations.items()):
            if location.is_saved and key[1] == _OF_ALTERNATIVES:
                del gin.config._CONFIG[key[:2]][key[2]], self.locations[key]

    def _bind(self, key: Any, value: Any, location: SourceLocation) -> None:
        name = (key.scope, key.complete_selector, key.arg_name)
        before = gin.config._CONFIG.get(name[:2], {}).get(key.arg_name)
        if name[1:] in _MERGED and isinstance(value, dict) and isinstance(before, dict):
            value = {**before, **value}
        gin.bind_parameter(key, value)
        if self._in_alternative():
            first = self._alternative.get(name, (location, before, self.locations.get(name)))
            self._alternative[name] = (location, *first[1:])
        # Last in the order.
        self.locations.pop(name, None)
        self.locations[name] = location

    def _read(
        self,
        text: str,
        name: str,
        is_named: bool,
        is_packaged: bool = False,
        is_argument: bool = False,
    ) -> None:
        is_saved = _SAVED in text

        def locate(line: int) -> SourceLocation:
            shown = f"in {name}" if is_argument else f"{name}, line {line}"
            return SourceLocation(shown, is_named, is_packaged, is_saved)

        line = 1

        def note(error: Exception) -> None:
            self._note(self._explain(error, f" ({locate(line).text})"), "reading")

        lines = iter(text.splitlines(keepends=True))
        with gin.config._parse_scope() as context:
            try:
                parser = config_parser.ConfigParser(_Lines(lines), _Delegate(note))
                while True:
                    line = parser.current_token.start[0]
                    statement = parser.parse_statement()
                    if statement is None:
                        break
                    line = statement.location.line_num
                    self._execute(statement, context, locate(line), note)
            except SyntaxError as error:
                line = error.lineno or line
                self._note(_unreadable(error.msg, text, line, locate(line)), "broken")
            except RecursionError:
                self._note(_unreadable("nested too deeply", text, line, locate(line)), "broken")
            except tokenize.TokenError:
                line = _next_statement(text, line)
                self._note(_unreadable("it does not end", text, line, locate(line)), "broken")
            gin.config._IMPORTS.update(context.imports)

    def _execute(
        self,
        statement: Any,
        context: Any,
        location: SourceLocation,
        note: Callable[[Exception], None],
    ) -> None:
        """Executes a statement."""
        if isinstance(statement, config_parser.IncludeStatement):
            self.read_file(statement.filename, f" ({location.text})")
            return
        try:
            if isinstance(statement, config_parser.BindingStatement):
                scope, selector, parameter, value, _ = statement
                if selector in self._unknown:
                    return
                if not parameter:
                    scope, selector, parameter = _macro(scope, selector), _MACRO, "value"
                else:
                    parameter, value = current_binding(selector, parameter, value)
                key = gin.config.ParsedBindingKey.parse((scope, selector, parameter))
                self._bind(key, value, location)
            elif isinstance(statement, config_parser.ImportStatement):
                if self._imports:
                    context.process_import(statement)
            elif not context.get_configurable(statement.selector):
                self._unknown.add(statement.selector)
                raise ValueError(f"No configurable matching '{statement.selector}'.")
        except Exception as error:
            note(error)

    def _note(self, text: str, kind: Any) -> None:
        self.mistakes.append(Mistake(" ".join(text.split()), kind))


class _Lines:
    """The lines of a text, with the interface that the parser reads."""

    def __init__(self, lines: Any):
        self._lines = lines

    def readline(self) -> str:
        return next(self._lines, "")


def _is_file(path: str) -> bool:
    """Returns whether a path is a regular file; pipes and devices might never end."""
    return bool(epath.Path(path).is_file()) if "://" in path else os.path.isfile(path)


def _macro(scope: str, selector: str) -> str:
    return f"{scope}/{selector}" if scope else selector


def _next_statement(text: str, line: int) -> int:
    """Returns the first line from `line` on that is not blank or a comment."""
    for number, content in enumerate(text.splitlines(), 1):
        if number >= line and content.strip() and not content.lstrip().startswith("#"):
            return number
    return line


def _unreadable(reason: str, text: str, line: int, location: SourceLocation) -> str:
    """Returns the message for a line that is not valid gin."""
    lines = text.splitlines()
    found = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    found = found if len(found) <= 60 else f"{found[:57]}..."
    reason, _, token = reason.strip().partition("\n")
    wrong = token.rpartition("Failed to parse token")[2].strip(" '\"")
    if wrong:
        return (
            f"{found!r} ({location.text}) is no line of gin: {wrong} is no value; texts are "
            "written in quotes, and True, False and None with a capital letter"
        )
    return (
        f"{found!r} ({location.text}) is no line of gin: {reason.rstrip('.')}; expected "
        "NAME.PARAMETER = VALUE, MACRO = VALUE or include 'FILE'"
    )
