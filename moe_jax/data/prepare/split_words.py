"""Finds files without fixed names by the word in their names that names the split."""

import re
from collections.abc import Sequence
from pathlib import Path

from moe_jax.data.prepare.file_layout import SplitFiles, plain_name
from moe_jax.errors import UserError

_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


def find_by_word(source: Path, endings: Sequence[str], anywhere: bool = False) -> SplitFiles:
    """Returns all files with one of the endings, by split, from all folders below `source`.

    The split is the word that the file's name or the name of a folder below `source` starts with:
    train, validation (valid, val, dev), test; files without such a word are training data.

    Args:
        source: the folder.
        endings: such as ".jsonl"; .gz may follow.
        anywhere: the word may also stand later in the name, as in "europarl.test.de".

    Raises:
        UserError: if there is no such file.
    """
    splits: dict[str, list[Path]] = {}
    every = {p for p in source.rglob("*") if p.is_file() and not _hidden(p, source)}
    for path in sorted(every):
        twice = path.suffix == ".gz" and path.with_suffix("") in every
        if plain_name(path).endswith(tuple(endings)) and not twice:
            split = split_of(path.relative_to(source), anywhere)
            splits.setdefault(split or "train", []).append(path)
    if not splits:
        raise UserError(f"found no {' or '.join(endings)} (or .gz of it) in {source}")
    order = [split for split in ("train", "validation", "test") if split in splits]
    return SplitFiles({split: tuple(splits[split]) for split in order})


def find_or_hold_out(source: Path, endings: Sequence[str], anywhere: bool = False) -> SplitFiles:
    """Finds files as `find_by_word` does; without validation files, examples are held out.

    Raises:
        UserError: if there is no such file.
    """
    found = find_by_word(source, endings, anywhere)
    if "validation" not in found.splits and "train" in found.splits:
        train = found.splits.pop("train")
        found.splits = {"train": train, "validation": train, **found.splits}
        found.held_out = True
        found.notes.append("no file is named validation: every 20th document is held out for it")
    return found


def split_of(path: Path, anywhere: bool = False) -> str | None:
    """Returns the split that a path's words name, or None."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for word in words if anywhere else words[:1]:
            if word in _WORDS:
                return _WORDS[word]
    return None


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)
