"""Reads rows of text files: plain or .gz, any line end, with or without a byte order mark.

A reader raises `MalformedRowError` for a row that it cannot use. `DataFile.rows` counts and skips
such rows, keeps the location of the first few, and refuses a file with too many of them.
"""

import dataclasses
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from moe_jax.errors import UserError

Example = dict[str, Any]
KeyedExample = tuple[str | int, Example]

# A file with a larger share of malformed rows is refused.
MAX_MALFORMED_SHARE = 0.01
_MAX_ERRORS = 3
_BOM = b"\xef\xbb\xbf"


class MalformedRowError(Exception):
    """A row that cannot be used; the message is the reason."""


@dataclasses.dataclass
class DataFile:
    """A file of a data set, with counts of the rows that were read.

    Attributes:
        path: path of the file.
        total: rows read, malformed ones included.
        malformed: malformed rows, which are skipped.
        errors: the first few malformed rows, each "FILE:LINE: reason".
    """

    path: Path
    total: int = 0
    malformed: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)

    def rows(
        self, places: Iterable[tuple[int, Any]], parse: Callable[[Any], Iterable[KeyedExample]]
    ) -> Iterator[KeyedExample]:
        """Yields the examples that `parse` makes of each (line number, row).

        Args:
            places: rows, each with the number of its first line.
            parse: makes any number of examples of a row, or raises `MalformedRowError`.

        Raises:
            UserError: if more than 1% of the rows are malformed.
        """
        for line, row in places:
            self.total += 1
            try:
                yield from list(parse(row))
            except MalformedRowError as error:
                self.malformed += 1
                if len(self.errors) < _MAX_ERRORS:
                    self.errors.append(f"{self.path.name}:{line}: {error}")
                # It is a file of another kind.
                if self.malformed >= 1000 and self.malformed > self.total / 2:
                    break
        if self.malformed > MAX_MALFORMED_SHARE * self.total:
            raise UserError(
                f"{self.path}: {self.malformed:,} of {self.total:,} rows are malformed, more than "
                f"{MAX_MALFORMED_SHARE:.0%}: is it the right file, and whole? "
                + "; ".join(self.errors)
            )

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields the lines with their numbers from 1 on, without line ends.

        Raises:
            UserError: if the file cannot be read.
        """
        try:
            with open_bytes(self.path) as file:
                for number, line in enumerate(file, start=1):
                    line = line.removeprefix(_BOM) if number == 1 else line
                    yield number, line.removesuffix(b"\n").removesuffix(b"\r")
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"cannot read {self.path}: {error}") from None

    def text(self) -> str:
        """Returns the whole file, each line ended by a line feed.

        Raises:
            UserError: if the file cannot be read or is not UTF-8.
        """
        lines = []
        for number, line in self.lines():
            try:
                lines.append(decode(line))
            except MalformedRowError as error:
                raise UserError(f"{self.path}:{number}: {error}") from None
        return "\n".join(lines)


def open_bytes(path: Path) -> IO[bytes]:
    """Opens a file, decompressed if its name ends in .gz."""
    packed = path.suffix.lower() == ".gz"
    return cast(IO[bytes], gzip.open(path, "rb") if packed else path.open("rb"))


def decode(line: bytes) -> str:
    """Returns UTF-8 as text; raises `MalformedRowError` for anything else."""
    if b"\0" in line:
        raise MalformedRowError("not text: it has NUL bytes")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedRowError(f"not UTF-8 text (byte {error.start} of the line)") from None


def not_empty(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not white space only."""
    return ((number, line) for number, line in lines if line.strip())


def read_tsv(file: DataFile, columns: list[str] | None) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Yields the rows of a TSV file, (line, (index of the row, its bytes)), and checks the header.

    Args:
        file: file with tabs between the fields; quotes are part of the text.
        columns: names that the header must have; None for a file without header.

    Raises:
        UserError: if the header lacks one of them.
    """
    lines = not_empty(file.lines())
    if columns is not None:
        first = next(lines, None)
        if first is None:
            return
        header = split_fields(first[1])
        missing = [name for name in columns if name not in header]
        if missing:
            raise UserError(
                f"{file.path} has no column {missing[0]!r}; its first line is "
                f"{' | '.join(header)[:200]!r}: is it a file of another data set?"
            )
    for index, (number, line) in enumerate(lines):
        yield number, (index, line)


def split_fields(line: bytes, count: int | None = None) -> list[str]:
    """Returns the fields of a line of a TSV file.

    Raises:
        MalformedRowError: if there are not `count` of them.
    """
    found = decode(line).split("\t")
    if count is not None and len(found) != count:
        raise MalformedRowError(f"{len(found)} fields with tabs between them, not {count}")
    return found


def header_of(file: DataFile) -> list[str]:
    """Returns the fields of a file's first non-empty line.

    Raises:
        UserError: if it is not text.
    """
    try:
        return split_fields(next(not_empty(file.lines()), (0, b""))[1])
    except MalformedRowError as error:
        raise UserError(f"{file.path}: the first line is {error}") from None
