"""The statements of gin files, parsed before gin acts on any of them.

Gin imports modules and includes files while it parses. Here all statements are parsed first, so
that they can be checked. Gin is then given the texts that were checked, even if the files have
changed since.
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

# A configuration has some kilobytes; a larger file is none, or an attack on the memory.
_MOST_BYTES = 4 << 20
# Files read for one configuration: nested includes can multiply without end.
_MOST_FILES = 1000
# A remote path such as gs://bucket, up to the bucket; etils treats /gs/bucket as the same.
NETWORK_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s'\"*]*|^/(?:gs|s3|az|hf)/[^/\s'\"*]*")
# The location of statements from the command line.
COMMAND_LINE = "a --gin.NAME=VALUE"

# Gin's `BindingStatement`, `BlockDeclaration`, `ImportStatement` or `IncludeStatement`; gin has no
# type annotations.
GinStatement = Any


@dataclasses.dataclass(frozen=True)
class Reference:
    """A reference in a value: `@name`, `@name()`, or `%name` to a macro.

    Attributes:
        name: the name with its scopes, `scope/name`.
        macro: whether it refers to a macro.
    """

    name: str
    macro: bool = False

    @property
    def selector(self) -> str:
        """The name without scopes."""
        return self.name.rpartition("/")[2]


@dataclasses.dataclass(frozen=True)
class Statement:
    """A statement of a configuration.

    Attributes:
        parsed: gin's parsed statement, with a `Reference` for every name in its values.
        root: the file given by the user that includes it; empty for the command line.
    """

    parsed: GinStatement
    root: str

    @property
    def location(self) -> str:
        """File and line."""
        location = self.parsed.location
        if location.filename is None:
            return COMMAND_LINE
        return f"{location.filename}, line {location.line_num}"


class _Recorder(config_parser.ParserDelegate):
    """Keeps the references in values unresolved."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Reference:
        return Reference(scoped_configurable_name)

    def macro(self, macro_name: str) -> Reference:
        return Reference(macro_name, macro=True)


class _Text(io.StringIO):
    """A text with a name, for error messages."""

    def __init__(self, name: str, text: str):
        super().__init__(text)
        self.name = name


class StatementReader:
    """Reads the statements of one configuration.

    Args:
        search_paths: directories in which files are looked up, in this order; "" for the working
            directory.
        run: the file of a run directory, which may include nothing from a network.
    """

    def __init__(self, search_paths: Sequence[str], run: str | None = None):
        self._search_paths, self._run = list(search_paths), run
        self._texts: dict[str, str] = {}
        self._files = 0

    def statements(self, files: Sequence[str], bindings: Sequence[str]) -> list[Statement]:
        """Returns the statements of files, of included files, and of bindings, in gin's order.

        Raises:
            UserError: for a file that does not exist, is not text, or includes itself.
            SyntaxError: raised by gin for text that is not gin.
        """
        found: list[Statement] = []
        for file in files:
            self._walk(file, file, (), found)
        self._parse(None, "\n".join(bindings), "", (), found)
        return found

    @property
    def texts(self) -> dict[str, str]:
        """The texts that `statements` has read, by path."""
        return dict(self._texts)

    def _walk(self, file: str, root: str, chain: tuple[str, ...], found: list[Statement]) -> None:
        if chain and root == self._run and NETWORK_PATH.match(file):
            raise UserError(
                f"include {file!r} was refused ({found[-1].location}): the configuration of a run "
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
        found: list[Statement],
    ) -> None:
        name = path or COMMAND_LINE
        try:
            for statement in ConfigParser(_Text(path, text) if path else text, _Recorder()):
                found.append(Statement(statement, root))
                if isinstance(statement, IncludeStatement):
                    self._walk(statement.filename, root, chain, found)
        except tokenize.TokenError as error:
            raise UserError(f"{error.args[0]} ({name}, line {error.args[1][0]})") from None
        except RecursionError:
            raise UserError(f"the values in {name} are nested too deeply") from None

    def _find(self, file: str, found: list[Statement]) -> str:
        """Returns the path of a file, looked up in the same order as gin does."""
        directories = [""] if os.path.isabs(file) else self._search_paths
        for directory in directories:
            path = os.path.join(directory, file)
            if path in self._texts or is_file(path):
                return path
        where = f" to include ({found[-1].location})" if found else ""
        shown = ", ".join(directory or os.getcwd() for directory in directories)
        raise UserError(f"there is no gin file {file!r}{where}; looked in {shown}")


def leaves(value: object) -> Iterator[object]:
    """Yields the leaves of a nested value, including the keys of dictionaries."""
    if isinstance(value, dict):
        value = list(value.items())
    if not isinstance(value, list | tuple):
        yield value
        return
    for item in value:
        yield from leaves(item)


def is_file(path: str) -> bool:
    """Returns whether a path, local or remote, is a regular file."""
    if NETWORK_PATH.match(path):
        return bool(epath.Path(path).is_file())
    # Not a pipe or a device, which epath takes for a file and reading might never end.
    return os.path.isfile(path)


def _read(path: str) -> str:
    """Returns the text of a file with normalized line endings."""
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
