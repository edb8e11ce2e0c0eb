"""Checks files of text, and splits them into documents where they must be copied.

TensorFlow reads lines that end in a line feed, with or without a carriage return before it. Other
files of text, such as those with carriage returns only, are copied once as documents.
"""

import codecs
import dataclasses
from collections.abc import Iterator

from moe_jax.data.sources.file_reader import UnusableFileError

LINES_PER_DOCUMENT = 64
# Longer lines are not read into memory, but copied in several documents.
MAX_LINE_BYTES = 1 << 26
# Approximate maximum size of the documents of a copy; pieces of the split are much smaller.
_COPIED_BYTES = 1 << 20
# Longest first: UTF-32's mark begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


@dataclasses.dataclass
class TextProperties:
    """Byte-order mark, line ends and longest line of a text.

    Attributes:
        mark: whether it starts with a byte-order mark.
        returns: whether carriage returns without line feeds end lines in it.
        longest: bytes of its longest line, exact from the size of a block on.
    """

    mark: bool = False
    returns: bool = False
    longest: int = 0


def check_text(blocks: Iterator[bytes]) -> TextProperties:
    """Reads a text to its end.

    Raises:
        UnusableFileError: if it is empty or not UTF-8 text, with the offset of the byte.
    """
    form = TextProperties()
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line, empty, held = 0, 0, True, b""
    for block in blocks:
        if offset == 0:
            form.mark = _mark(block)
        nul = block.find(b"\0")
        _decode(decoder, block if nul < 0 else block[:nul], offset)
        if nul >= 0:
            raise UnusableFileError(f"is not a text file (NUL byte at byte {offset + nul})")
        empty = empty and not block.removeprefix(codecs.BOM_UTF8 if offset == 0 else b"").strip()
        if held or b"\r" in block:
            # A carriage return at the end of a block may be the first half of a line end.
            held += block
            whole = held.removesuffix(b"\r")
            form.returns |= whole.count(b"\r") > whole.count(b"\r\n")
            held = held[len(whole) :]
        end = block.rfind(b"\n")
        line = len(block) - end - 1 if end >= 0 else line + len(block)
        form.longest = max(form.longest, line)
        offset += len(block)
    _decode(decoder, b"", offset, final=True)
    if empty:
        raise UnusableFileError("is empty")
    return form


def _mark(block: bytes) -> bool:
    """Returns whether a text starts with UTF-8's mark."""
    for mark, name in _MARKS.items():
        if block.startswith(mark):
            raise UnusableFileError(
                f"is {name} and not UTF-8 text; convert it, for example with "
                f"`iconv -f {name} -t UTF-8`"
            )
    return block.startswith(codecs.BOM_UTF8)


def _decode(
    decoder: codecs.IncrementalDecoder, block: bytes, offset: int, final: bool = False
) -> None:
    waiting = len(decoder.getstate()[0])
    if not waiting and not final and block.isascii():
        return
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError as error:
        raise UnusableFileError(
            f"is not UTF-8 text (byte {offset - waiting + error.start}); convert it, for example "
            "with `iconv -t UTF-8`"
        ) from None


def text_documents(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields documents of `LINES_PER_DOCUMENT` lines, with any line ends.

    Documents with very long lines are split at about a megabyte, between characters. The
    byte-order mark is dropped, and every line ends in a line feed.
    """
    parts: list[bytes] = []
    lines = size = 0
    for line in _lines(blocks):
        parts.append(line)
        lines += line.endswith(b"\n")
        size += len(line)
        if lines == LINES_PER_DOCUMENT or size >= _COPIED_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
            lines %= LINES_PER_DOCUMENT
    if parts:
        last = b"".join(parts)
        yield last if last.endswith(b"\n") else last + b"\n"


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields lines that end in line feeds; long ones in parts, split between characters."""
    rest, first = b"", True
    for block in blocks:
        block = rest + (block.removeprefix(codecs.BOM_UTF8) if first else block)
        first = False
        held = b"\r" if block.endswith(b"\r") else b""
        block = block.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = block.rfind(b"\n") + 1
        yield from block[:end].splitlines(keepends=True)
        rest = block[end:]
        while len(rest) > _COPIED_BYTES:
            cut = _COPIED_BYTES
            while rest[cut] & 0xC0 == 0x80:
                cut -= 1
            yield rest[:cut]
            rest = rest[cut:]
        rest += held
    rest = rest.removesuffix(b"\r")
    if rest:
        yield rest
