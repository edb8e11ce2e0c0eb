"""The code of a guide: its fenced blocks, those that are files, and its commands."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs" / "guides"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.]+\.(?:py|gin))\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Returns the fenced blocks of a guide: language and text."""
    return _BLOCK.findall((DOCS / page).read_text())


def write_files(page: str, directory: Path) -> list[str]:
    """Writes the blocks that begin with a file's name into a directory; returns the names."""
    names = []
    for _, text in blocks(page):
        if (match := _FILE.match(text)) is not None:
            (directory / match[1]).write_text(text)
            names.append(match[1])
    return names


def python_blocks(page: str) -> list[str]:
    """Returns the Python blocks that are no files."""
    found = [text for language, text in blocks(page) if language == "python"]
    return [text for text in found if _FILE.match(text) is None]


def commands(page: str, program: str = "moe-jax") -> list[list[str]]:
    """Returns the arguments of the program's commands in the bash blocks."""
    texts = [text.replace("\\\n", " ") for language, text in blocks(page) if language == "bash"]
    lines = [shlex.split(line) for text in texts for line in text.splitlines()]
    return [line[1:] for line in lines if line[:1] == [program]]
