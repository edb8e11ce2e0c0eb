"""Finds and reads German and English sentences for wmt19_translate/de-en."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_jax.data.prepare.file_layout import SplitFiles, plain_name
from moe_jax.data.prepare.jsonl_reader import get_field, read_objects
from moe_jax.data.prepare.row_reader import (
    DataFile,
    Example,
    KeyedExample,
    decode,
    read_tsv,
    split_fields,
)
from moe_jax.data.prepare.split_words import find_by_word
from moe_jax.errors import UserError

_SEGMENT = re.compile(rb"<seg [^>]*>(.*?)</seg>")


def read_wmt(file: DataFile, split: str) -> Iterator[KeyedExample]:
    """Reads German and English: two files line by line, a TSV file, or JSONL."""
    name = plain_name(file.path)
    if name.endswith(".jsonl"):
        return read_objects(file, _translation_line, unique_keys=True)
    if name.endswith((".tsv", ".txt")):
        # ParaCrawl's file is named after its columns, the English first.
        order = ("en", "de") if "en-de" in name else ("de", "en")

        def parse(row: tuple[int, bytes]) -> list[KeyedExample]:
            index, line = row
            texts = [text.strip() for text in split_fields(line, 2)]
            return _filled(index, dict(zip(order, texts, strict=True)))

        return file.rows(read_tsv(file, None), parse)
    return _read_parallel(file)


def _translation_line(index: int, row: dict[str, Any]) -> list[KeyedExample]:
    row = get_field(row, "translation", dict) if "translation" in row else row
    return _filled(index, {"de": get_field(row, "de", str), "en": get_field(row, "en", str)})


def _filled(index: int, example: Example) -> list[KeyedExample]:
    """Returns a pair of sentences; as in TFDS, none if one of the two is empty."""
    return [(index, example)] if all(text.strip() for text in example.values()) else []


def english_of(path: Path) -> Path | None:
    """Returns the English file that belongs to a German one, or None."""
    name = plain_name(path)
    name = name.replace("-src.de", "-ref.en") if "-src.de" in name else _swap(name)
    matches = [other for other in path.parent.iterdir() if plain_name(other) == name]
    return min(matches, key=lambda other: (other.suffix == ".gz", other.name), default=None)


def _swap(name: str) -> str:
    head, dot, tail = name.rpartition(".de")
    return f"{head}.en{tail}" if dot else name


def _read_parallel(file: DataFile) -> Iterator[KeyedExample]:
    path = english_of(file.path)
    if path is None:
        raise UserError(
            f"{file.path} has no English file beside it, such as {_swap(file.path.name)}"
        )
    other = DataFile(path)
    pairs = itertools.zip_longest(_sentences(file), _sentences(other))

    def numbered() -> Iterator[tuple[int, tuple[int, bytes, bytes]]]:
        for index, (german, english) in enumerate(pairs):
            if german is None or english is None:
                short, long = (file, other) if german is None else (other, file)
                raise UserError(
                    f"{short.path} has {index:,} lines, fewer than {long.path}: one of the two is "
                    "cut off"
                )
            yield german[0], (index, german[1], english[1])

    def parse(row: tuple[int, bytes, bytes]) -> list[KeyedExample]:
        index, german, english = row
        return _filled(index, {"de": decode(german), "en": decode(english)})

    return file.rows(numbered(), parse)


def _sentences(file: DataFile) -> Iterator[tuple[int, bytes]]:
    """Yields the lines of a file, or the segments of an SGML file."""
    if not plain_name(file.path).endswith(".sgm"):
        yield from file.lines()
        return
    for number, line in file.lines():
        for segment in _SEGMENT.findall(line):
            yield number, segment


# TFDS validates on 2018's news; 2019's are the year's own test set.
_NEWS = {"newstest2018": "validation", "newstest2019": "test"}


def find_wmt(source: Path) -> SplitFiles:
    """Finds pairs of files (.de, .en or .sgm), TSV and JSONL files, by the split in their name.

    Raises:
        UserError: if there are none, or a .de file has no .en beside it.
    """
    endings = (".de", ".de.sgm", ".de-en.tsv", ".bicleaner07.txt", ".jsonl")
    every = find_by_word(source, endings, anywhere=True)
    splits: dict[str, list[Path]] = {"train": [], "validation": [], "test": []}
    notes = list(every.notes)
    for split, paths in every.splits.items():
        for path in paths:
            name = plain_name(path)
            alone = name.endswith((".de", ".de.sgm")) and not english_of(path)
            if alone and not name.endswith(".sgm"):
                raise UserError(f"{path} has no English file beside it")
            if name.startswith("news") and name[4:7] in ("tes", "dev", "dis"):
                into = next((to for news, to in _NEWS.items() if name.startswith(news)), None)
            else:
                into = split
            if into is None or alone:
                notes.append(f"not used: {path.name}")
            else:
                splits[into].append(path)
    found = {split: tuple(paths) for split, paths in splits.items() if paths}
    if not found:
        raise UserError(f"found no pair of German and English files in {source}")
    return SplitFiles(found, notes)
