"""Reads CNN/DailyMail: JSONL, or the published stories with lists of their URLs."""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_jax.data.prepare.file_layout import plain_name
from moe_jax.data.prepare.jsonl_reader import get_field, read_objects
from moe_jax.data.prepare.row_reader import (
    DataFile,
    KeyedExample,
    MalformedRowError,
    decode,
    not_empty,
)
from moe_jax.errors import UserError

# TFDS's names of the publishers, and the folders in their archives.
_PUBLISHERS = {"cnn": "cnn/stories", "dm": "dailymail/stories"}
_ENDS = (".", "!", "?", "...", "'", "`", '"', "’", "”", ")")


def read_story(path: Path) -> tuple[str, str]:
    """Returns article and highlights of a .story file, as TFDS does.

    A line without a sentence end gets a full stop; article and highlights are one line each.
    """
    article: list[str] = []
    highlights: list[str] = []
    into = article
    for line in DataFile(path).text().split("\n"):
        line = line.strip()
        if line.startswith("@highlight"):
            into = highlights
        elif line:
            whole = line.endswith(_ENDS) or "@highlight" in line
            into.append(line if whole else line + ".")
    return " ".join(article), "\n".join(highlights)


def read_cnn_dailymail(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads CNN/DailyMail from JSONL (`article`, `highlights`) or a list of its stories' URLs."""
    if plain_name(file.path).endswith(".jsonl"):
        return read_objects(file, functools.partial(_summary, split))
    return file.rows(not_empty(file.lines()), functools.partial(_listed, file.path.parent))


def _listed(folder: Path, line: bytes) -> list[KeyedExample]:
    """Returns the story of a URL; like TFDS, none if its article or highlights are empty."""
    name = hashlib.sha1(decode(line).strip().encode()).hexdigest()
    paths = {
        publisher: folder / stories / f"{name}.story" for publisher, stories in _PUBLISHERS.items()
    }
    publisher = next((publisher for publisher, path in paths.items() if path.exists()), None)
    if publisher is None:
        raise MalformedRowError(f"there is no {name}.story in {' or '.join(_PUBLISHERS.values())}")
    path = paths[publisher]
    try:
        article, highlights = read_story(path)
    except UserError as error:
        raise MalformedRowError(str(error)) from None
    if not article or not highlights:
        return []
    example = {"article": article, "highlights": highlights, "publisher": publisher, "id": name}
    return [(path.name, example)]


def _summary(split: str, index: int, row: dict[str, Any]) -> list[KeyedExample]:
    article, highlights = get_field(row, "article", str), get_field(row, "highlights", str)
    if not article.strip() or not highlights.strip():
        raise MalformedRowError("no article" if not article.strip() else "no highlights")
    key = row.get("id", f"{split}-{index}")
    example = {"article": article, "highlights": highlights}
    return [(str(key), {**example, "publisher": str(row.get("publisher", "")), "id": str(key)})]
