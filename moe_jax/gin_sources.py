"""The texts of gin files: each read once, and taken apart before gin acts on any of them.

Gin imports a module, and includes a file, when it comes to the line. Here all lines are known
first, so that they can be checked; and gin is then given the very texts that were checked, whatever
has become of the files since.
"""

import dataclasses
import io
import os
import re
import tokenize
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath
from gin import config_parser
from gin.config_parser import ConfigParser, IncludeStatement

from moe_jax.errors import UserError

# A configuration is some kilobytes; more is something else, or is to fill the memory.
_MOST_BYTES = 4 << 20
# Files read for one configuration: includes that include can multiply without end.
_MOST_FILES = 1000
# gs://bucket and its like, up to the bucket; etils takes /gs/bucket for the same.
NETWORK_PLACE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s'\"*]*|^/(?:gs|s3|az|hf)/[^/\s'\"*]*")
# How the parser names a text without a file.
COMMAND_LINE = "a --gin.NAME=VALUE"

# Gin's `BindingStatement`, `BlockDeclaration`, `ImportStatement` or `IncludeStatement`; gin has no
# types to check.
Statement = Any


@dataclasses.dataclass(frozen=True)
class Reference:
    """A reference in a value, `@name` or `@name()`; a macro's is `%name`.

    Attributes:
        name: with its scopes, `scope/name`.
        macro: whether it is a macro.
    """

    name: str
    macro: bool = False

    @property
    def selector(self) -> str:
        """The name without scopes."""
        return self.name.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Line:
    """One statement of a configuration, in the order in which gin acts on them.

    Attributes:
        statement: as gin's parser reads it, with a `Reference` for every name in its values.
        root: the file given by the user that led to it; empty for the command line.
    """

    statement: Statement
    root: str

    @property
    def where(self) -> str:
        """File and line."""
        location = self.statement.location
        if location.filename is None:
            return COMMAND_LINE
        return f"{location.filename}, line {location.line_num}"


class _Recorder(config_parser.ParserDelegate):
    """Takes down the names in values, and looks none of them up."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name)

    def macro(self, macro_name: str) -> Reference:
        return Reference(macro_name, macro=True)


class _Text(io.StringIO):
    """A text that errors can name."""

    def __init__(self, name: str, text: str):
        super().__init__(text)
        self.name = name


class Sources:
    """The gin files of one configuration.

    Args:
        places: directories in which files are looked for, in order; "" for the working directory.
        run: a run directory's own file, which may include nothing from a network.
    """

    def __init__(self, places: Sequence[str], run: str | None = None):
        self._places, self._run = list(places), run
        self._texts: dict[str, str] = {}
        self._files = 0

    def lines(self, files: Sequence[str], bindings: Sequence[str]) -> list[Line]:
        """Returns the statements of files, of what they include, and of bindings over them.

        Raises:
            UserError: for a file that is not there, is no text, or includes itself.
            SyntaxError: gin's own, for text that is not gin.
        """
        found: list[Line] = []
        for file in files:
            self._walk(file, file, (), found)
        self._parse(None, "\n".join(bindings), "", (), found)
        return found

    @property
    def texts(self) -> dict[str, str]:
        """The texts that `lines` has read, by path."""
        return dict(self._texts)

    def _walk(self, file: str, root: str, chain: tuple[str, ...], found: list[Line]) -> None:
        if chain and root == self._run and NETWORK_PLACE.match(file):
            raise UserError(
                f"include {file!r} was refused ({found[-1].where}): the configuration of a run "
                "includes nothing from a network"
            )
        path = self._find(file, found)
        if path in chain:
            raise UserError(f"{path} includes itself (by way of {' -> '.join((*chain, path))})")
        self._files += 1
        if self._files > _MOST_FILES:
            raise UserError(f"{root} includes more than {_MOST_FILES} files")
        if path not in self._texts:
            self._texts[path] = _read(path)
        self._parse(path, self._texts[path], root, (*chain, path), found)

    def _parse(
        self,
        path: str | None,
        text: str,
        root: str,
        chain: tuple[str, ...],
        found: list[Line],
    ) -> None:
        name = path or COMMAND_LINE
        try:
            for statement in ConfigParser(_Text(path, text) if path else text, _Recorder()):
                found.append(Line(statement, root))
                if isinstance(statement, IncludeStatement):
                    self._walk(statement.filename, root, chain, found)
        except tokenize.TokenError as error:
            raise UserError(f"{error.args[0]} ({name}, line {error.args[1][0]})") from None
        except RecursionError:
            raise UserError(f"the values in {name} are nested too deeply") from None

    def _find(self, file: str, found: list[Line]) -> str:
        """Returns the path of a file, looked for in the same order as gin does."""
        places = [""] if os.path.isabs(file) else self._places
        for place in places:
            path = os.path.join(place, file)
            if path in self._texts or is_file(path):
                return path
        where = f" to include ({found[-1].where})" if found else ""
        shown = ", ".join(place or os.getcwd() for place in places)
        raise UserError(f"there is no gin file {file!r}{where}; looked in {shown}")


def leaves(value: object) -> Iterator[object]:
    """Returns what a value holds at any depth, the keys of dictionaries included."""
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from leaves(item)


def is_file(path: str) -> bool:
    """Returns whether a path, local or remote, is a regular file."""
    if NETWORK_PLACE.match(path):
        return bool(epath.Path(path).is_file())
    # Not a pipe or a device, which epath takes for a file and reading might never end.
    return os.path.isfile(path)


def _read(path: str) -> str:
    """Returns the text of a file, its line ends as Python's text files have them."""
    try:
        with epath.Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read the gin file {path}: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path} has more than {_MOST_BYTES >> 20} MiB: not a gin file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}): not a gin file") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")
