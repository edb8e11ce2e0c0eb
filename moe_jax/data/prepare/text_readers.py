"""Reads dialogues, plain text, a text field of JSONL, and WikiText."""

from collections.abc import Iterator
from typing import Any

from moe_jax.data.prepare.jsonl_reader import get_field, read_objects
from moe_jax.data.prepare.row_reader import DataFile, KeyedExample, MalformedRowError, decode
from moe_jax.errors import UserError

# A longer text file is split at line ends: an example has to fit into a shuffle buffer.
MAX_DOCUMENT_CHARS = 1_000_000


def read_dialogues(file: DataFile, split: str, narrative: bool = True) -> Iterator[KeyedExample]:
    """Reads SODA's JSONL: `dialogue` (turns), `speakers` (of each turn), `narrative`."""

    def parse(index: int, row: dict[str, Any]) -> list[KeyedExample]:
        turns, speakers = get_field(row, "dialogue", list), get_field(row, "speakers", list)
        if len(turns) != len(speakers):
            raise MalformedRowError(f"{len(turns)} turns with {len(speakers)} speakers")
        if not turns or not all(isinstance(text, str) for text in [*turns, *speakers]):
            raise MalformedRowError(
                "no turns" if not turns else "a turn or a speaker that is not text"
            )
        text = get_field(row, "narrative", str) if narrative or "narrative" in row else ""
        return [(index, {"dialogue": turns, "speakers": speakers, "narrative": text})]

    return read_objects(file, parse, unique_keys=True)


def read_field(file: DataFile, split: str, field: str = "text") -> Iterator[KeyedExample]:
    """Reads one text field of each line of a JSONL file."""

    def parse(index: int, row: dict[str, Any]) -> list[KeyedExample]:
        text = get_field(row, field, str)
        if not text.strip():
            raise MalformedRowError(f"field {field!r} is empty")
        return [(index, {"text": text})]

    return read_objects(file, parse, unique_keys=True)


def read_c4(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads C4's JSONL: `text`, and `url` and `timestamp` where they are given."""

    def parse(index: int, row: dict[str, Any]) -> list[KeyedExample]:
        known = {name: str(row.get(name, "")) for name in ("url", "timestamp")}
        hidden = {"content-type": "", "content-length": ""}
        return [(index, {**hidden, **known, "text": get_field(row, "text", str)})]

    return read_objects(file, parse, unique_keys=True)


def read_text(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads a text file as one document, or as several of bounded size if it is long."""
    return file.rows(_documents(file), lambda row: [(row[0], {"text": row[1]})])


def _documents(file: DataFile) -> Iterator[tuple[int, tuple[int, str]]]:
    index, first, size = 0, 1, 0
    lines: list[str] = []
    for number, raw in _until_last_text(file):
        line = _decoded(file, number, raw)
        if lines and size + len(line) > MAX_DOCUMENT_CHARS:
            yield first, (index, "\n".join(lines) + "\n")
            index, first, size, lines = index + 1, number, 0, []
        lines.append(line)
        size += len(line) + 1
    if any(line.strip() for line in lines):
        yield first, (index, "\n".join(lines) + "\n")


def _until_last_text(file: DataFile) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file, without empty ones at the end."""
    waiting: list[tuple[int, bytes]] = []
    for number, line in file.lines():
        waiting.append((number, line))
        if line.strip():
            yield from waiting
            waiting.clear()


def _decoded(file: DataFile, number: int, raw: bytes) -> str:
    try:
        return decode(raw)
    except MalformedRowError as error:
        raise UserError(
            f"{file.path}:{number}: {error}: convert it, for example with `iconv -t UTF-8`"
        ) from None


def read_wikitext(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads WikiText: an example is an article, from its line " = Title = " to the next.

    The lines stay as they are, so that all articles one after the other are the file.
    """
    return file.rows(_articles(file), lambda row: [(row[0], {"text": row[1]})])


def _articles(file: DataFile) -> Iterator[tuple[int, tuple[int, str]]]:
    lines: list[str] = []
    index, first, after_empty = 0, 1, True
    for number, raw in file.lines():
        line = _decoded(file, number, raw)
        if after_empty and _is_title(line) and any(text.strip() for text in lines):
            yield first, (index, "\n".join(lines) + "\n")
            index += 1
            first, lines = number, []
        lines.append(line)
        after_empty = not line.strip()
    if any(text.strip() for text in lines):
        yield first, (index, "\n".join(lines) + "\n")


def _is_title(line: str) -> bool:
    """Returns whether a line is " = Title = " and not a section's " = = Title = = "."""
    line = line.strip()
    return (
        len(line) > 4
        and line.startswith("= ")
        and line.endswith(" =")
        and not line.startswith("= =")
    )
