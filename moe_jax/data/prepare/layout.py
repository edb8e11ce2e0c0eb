"""Finds a data set's files in the folder that the user names."""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

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


@dataclasses.dataclass(frozen=True)
class Names:
    """File names that a split may have; "*" matches, case does not matter, .gz may follow.

    Attributes:
        glob: the name.
        beside: a file that has to be in the same folder.
        note: said if such a file is taken, empty for an official name.
    """

    glob: str
    beside: str = ""
    note: str = ""


@dataclasses.dataclass
class Found:
    """The files of every split.

    Attributes:
        splits: by split name; only splits that have a file.
        notes: what the user should know about the choice.
        held_out: whether "train" and "validation" are the same files, to be divided by row.
    """

    splits: dict[str, tuple[Path, ...]]
    notes: list[str] = dataclasses.field(default_factory=list)
    held_out: bool = False


def official(*names: str) -> tuple[Names, ...]:
    """Returns names that files are published under."""
    return tuple(Names(name) for name in names)


def partial(
    *names: str, note: str = "a part of the split, or another file than the official one"
) -> tuple[Names, ...]:
    """Returns names that are taken only if there is no official one, and said."""
    return tuple(Names(name, note=note) for name in names)


def find_named(
    source: Path,
    roots: Sequence[str],
    folders: Sequence[str],
    splits: Mapping[str, Sequence[Names]],
) -> Found:
    """Returns the files of a data set with known file names.

    Args:
        source: the folder that the user names: the data set's own, or one above it.
        roots: names of folders that may be between `source` and the data set's own.
        folders: names of the data set's own folder.
        splits: the names of each split's file; the first that is there is taken.

    Raises:
        UserError: if no split has a file.
    """
    candidates = [
        folder
        for root in ("", *roots)
        for name in folders
        for above in _children(source, root)
        for folder in _children(above, name)
        if folder.is_dir()
    ]
    for folder in [*candidates, source]:
        found = Found({})
        for split, alternatives in splits.items():
            for names in alternatives:
                path = _first(folder, names.glob)
                if path is None or (names.beside and _first(folder, names.beside) is None):
                    continue
                found.splits[split] = (path,)
                if names.note:
                    found.notes.append(f"{split}: {path.name} is {names.note}")
                break
        if found.splits:
            return found
    wanted = dict.fromkeys(names[0].glob for names in splits.values())
    places = dict.fromkeys([f"{source}/{folder}" for folder in folders] + [str(source)])
    raise UserError(f"found none of {', '.join(wanted)} (or .gz of it) in {' or '.join(places)}")


def find_by_word(source: Path, endings: Sequence[str], anywhere: bool = False) -> Found:
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
    for path in sorted(p for p in source.rglob("*") if p.is_file() and not _hidden(p, source)):
        if plain_name(path).endswith(tuple(endings)):
            split = split_of(path.relative_to(source), anywhere)
            splits.setdefault(split or "train", []).append(path)
    if not splits:
        raise UserError(f"found no {' or '.join(endings)} (or .gz of it) in {source}")
    order = [split for split in ("train", "validation", "test") if split in splits]
    return Found({split: tuple(splits[split]) for split in order})


def plain_name(path: Path) -> str:
    """Returns a file's name in small letters, without .gz."""
    return path.name.lower().removesuffix(".gz")


def split_of(path: Path, anywhere: bool = False) -> str | None:
    """Returns the split that a path's words name, or None."""
    for part in reversed(path.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for word in words if anywhere else words[:1]:
            if word in _WORDS:
                return _WORDS[word]
    return None


def check_folder(source: str) -> Path:
    """Returns the folder of a name, `~` resolved.

    Raises:
        UserError: if it is not a folder that can be read.
    """
    path = Path(source).expanduser()
    if not path.is_dir():
        what = "a file: name the folder that it is in" if path.exists() else "not there"
        raise UserError(f"--source={source} is {what}")
    return path


def _children(folder: Path, name: str) -> Iterable[Path]:
    if not name:
        return [folder]
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()]


def _first(folder: Path, glob: str) -> Path | None:
    """Returns the first file that matches; one that is not packed before one that is."""
    matches = [
        path
        for path in folder.iterdir()
        if fnmatch.fnmatchcase(plain_name(path), glob.lower()) and path.is_file()
    ]
    return min(matches, key=lambda path: (path.suffix == ".gz", path.name), default=None)


def _hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)
