"""Reads the texts of JSON files: objects on lines, one after the other, or in an array.

TensorFlow has no JSON parser, and an iterator over Python code cannot be saved. So the texts of
a JSON file are copied once to the cache (moe_jax.data.sources.file_inspection).
"""

import codecs
import json
from collections.abc import Iterator
from typing import Any

from moe_jax.data.sources.file_reader import BLOCK, UnusableFileError

# A file with a larger share of lines that do not parse is refused.
MAX_BAD_LINES = 0.01
# An object with more characters is damaged.
_MAX_VALUE_CHARS = 1 << 28
# Bytes from which the layout of a file is recognised.
_HEAD = 1 << 22
_SPACE = " \t\r\n"


class JsonTexts(Iterator[bytes]):
    """The texts in one field of the objects of a JSON file, UTF-8.

    Args:
        blocks: contents of the file.
        field: field with the text; `a.b` is field b of field a.

    Raises:
        UnusableFileError: where the file is damaged; at the end, if it has no objects, or more than
            1% of them (or of the lines) have no text in the field.
    """

    def __init__(self, blocks: Iterator[bytes], field: str):
        self._field = field
        self._bad, self._total, self._first = 0, 0, ""
        self._unit = "line"
        self._texts = self._read(blocks)

    def __next__(self) -> bytes:
        return next(self._texts)

    def note(self) -> str | None:
        """Returns a note for the user about skipped lines, None if there are none."""
        if not self._bad:
            return None
        return f"{self._bad} of {self._total} {self._unit}s are left out (the first: {self._first})"

    def _read(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        head = b""
        while len(head) < _HEAD and (block := next(blocks, b"")):
            head += block
        head = _without_mark(head)
        by_lines = _is_by_lines(head)
        values = _from_lines(head, blocks) if by_lines else _from_values(head, blocks)
        self._unit = "line" if by_lines else "object"
        for number, value in values:
            self._total += 1
            try:
                yield _text(parse_json_value(value) if by_lines else value, self._field)
            except ValueError as error:
                self._bad += 1
                self._first = self._first or f"{self._unit} {number}: {error}"
        if not self._total:
            raise UnusableFileError(f"has no {self._unit}s")
        if self._bad > MAX_BAD_LINES * self._total:
            raise UnusableFileError(
                f"has no text in the field {self._field!r} in {self._bad} of {self._total} "
                f"{self._unit}s (the first: {self._first}); name the field after a #, such as "
                "jsonl:FILES#content"
            )


def parse_json_value(line: bytes) -> Any:
    """Parses a line of JSON.

    Raises:
        ValueError: with the reason, if it is invalid.
    """
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("too many brackets within brackets") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        # A number with more digits than Python converts to an int. Only texts are used.
        return json.loads(line, parse_int=lambda digits: 0)


def _text(value: Any, field: str) -> bytes:
    """Returns the text of an object.

    Raises:
        ValueError: with the reason, if it has none.
    """
    for name in field.split("."):
        if not isinstance(value, dict) or name not in value:
            known = ", ".join(sorted(value)[:8]) if isinstance(value, dict) else "no object"
            raise ValueError(f"no field {field!r}; it has: {known}")
        value = value[name]
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is no text but {type(value).__name__}")
    # Lone surrogates are valid JSON but no valid text.
    return value.encode("utf-8", "replace")


def _without_mark(head: bytes) -> bytes:
    for mark, name in (
        (codecs.BOM_UTF32_LE, "UTF-32"),
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
    ):
        if head.startswith(mark):
            raise UnusableFileError(
                f"is {name} and not UTF-8; convert it, for example with `iconv -f {name} -t UTF-8`"
            )
    return head.removeprefix(codecs.BOM_UTF8)


def _is_by_lines(head: bytes) -> bool:
    """Returns whether each line is a value, unlike arrays and values over several lines."""
    start = head.lstrip()
    if start.startswith(b"["):
        return False
    line = start.partition(b"\n")[0]
    if not start.startswith(b"{") or _parses(line):
        return True
    try:
        json.JSONDecoder().raw_decode(start.decode("utf-8", "ignore"))
    except (ValueError, RecursionError):
        return True
    return False


def _parses(line: bytes) -> bool:
    try:
        parse_json_value(line)
    except ValueError:
        return False
    return True


def _from_lines(head: bytes, blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yields the lines that are not blank, with their numbers."""
    number, parts = 0, [head]

    def lines(last: bool) -> Iterator[bytes]:
        whole = b"".join(parts).split(b"\n")
        parts[:] = [] if last else [whole.pop()]
        yield from whole

    for block in blocks:
        if b"\n" in block:
            parts.append(block)
            for line in lines(last=False):
                number += 1
                if line.strip():
                    yield number, line
        else:
            parts.append(block)
    for line in lines(last=True):
        number += 1
        if line.strip():
            yield number, line


class _Window:
    """A window of a JSON text, which is read on demand."""

    def __init__(self, head: bytes, blocks: Iterator[bytes]):
        self._blocks = blocks
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._bytes = 0
        self.text, self.place, self.at_end = "", 0, False
        self._add(head, final=False)

    def _add(self, block: bytes, final: bool) -> None:
        waiting = len(self._decode.getstate()[0])
        try:
            more = self._decode.decode(block, final)
        except UnicodeDecodeError as error:
            place = self._bytes - waiting + error.start
            raise UnusableFileError(f"is not UTF-8 text (byte {place})") from None
        self._bytes += len(block)
        self.text = self.text[self.place :] + more
        self.place = 0

    def more(self) -> None:
        """Doubles the window, or reads up to the end."""
        wanted = 2 * max(len(self.text) - self.place, BLOCK // 8)
        while len(self.text) - self.place < wanted and not self.at_end:
            block = next(self._blocks, None)
            self.at_end = block is None
            self._add(block or b"", final=self.at_end)

    @property
    def byte(self) -> int:
        """Offset of the window in the file."""
        return self._bytes - len(self.text[self.place :].encode())

    def skip_space(self) -> str:
        """Advances to the next character that is no space, and returns it; '' at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in _SPACE:
                self.place += 1
            if self.place < len(self.text) or self.at_end:
                return self.text[self.place : self.place + 1]
            self.more()


def _from_values(head: bytes, blocks: Iterator[bytes]) -> Iterator[tuple[int, Any]]:
    """Yields the elements of arrays, and values that follow each other, with their numbers."""
    window, decoder = _Window(head, blocks), json.JSONDecoder()
    number, inside, after = 0, False, False
    while True:
        sign = window.skip_space()
        if not sign and inside:
            raise UnusableFileError(
                f"ends too early: its array is not closed at byte {window.byte}"
            )
        if not sign:
            return
        if sign == "[" and not inside:
            inside, after = True, False
        elif sign == "]" and inside:
            inside, after = False, False
        elif sign == "," and inside and after:
            after = False
        elif inside and after:
            raise UnusableFileError(f"is damaged: there is no comma before byte {window.byte}")
        else:
            number += 1
            yield number, _next_value(window, decoder, number)
            after = True
            continue
        window.place += 1


def _next_value(window: _Window, decoder: json.JSONDecoder, number: int) -> Any:
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.place)
            # A number may continue.
            if end < len(window.text) or window.at_end:
                window.place = end
                return value
        except RecursionError:
            raise UnusableFileError(
                f"has too many brackets within brackets at byte {window.byte}"
            ) from None
        except ValueError as error:
            if window.at_end or len(window.text) - window.place > _MAX_VALUE_CHARS:
                reason = str(error).partition(": line")[0]
                raise UnusableFileError(
                    f"ends too early or is damaged: object {number}, from byte {window.byte} on "
                    f"({reason})"
                ) from None
        window.more()
