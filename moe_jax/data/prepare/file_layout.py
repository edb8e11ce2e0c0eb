"""Finds a data set's files in a folder by their names."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class FileNames:
    """A file name of a split; "*" matches anything, case is ignored, .gz may follow.

    Attributes:
        glob: name or pattern.
        beside: name of a file that must be in the same folder.
        note: note for the user if the file is used, empty for an official name.
    """

    glob: str
    beside: str = ""
    note: str = ""


@dataclasses.dataclass
class SplitFiles:
    """The files of every split.

    Attributes:
        splits: by split name; only splits that have a file.
        notes: notes for the user about the choice.
        held_out: whether "train" and "validation" are the same files, to be split by example.
    """

    splits: dict[str, tuple[Path, ...]]
    notes: list[str] = dataclasses.field(default_factory=list)
    held_out: bool = False


def official_names(*names: str) -> tuple[FileNames, ...]:
    """Returns the names of published files."""
    return tuple(FileNames(name) for name in names)


def partial_names(
    *names: str, note: str = "a part of the split, or another file than the official one"
) -> tuple[FileNames, ...]:
    """Returns names that are used, with a note, only if there is no official one."""
    return tuple(FileNames(name, note=note) for name in names)


def find_named(
    source: Path,
    roots: Sequence[str],
    folders: Sequence[str],
    splits: Mapping[str, Sequence[FileNames]],
) -> SplitFiles:
    """Returns the files of a data set with known file names.

    Args:
        source: the data set's folder, or one above it.
        roots: names of folders that may be between `source` and the data set's folder.
        folders: names of the data set's folder.
        splits: the names of each split's file; the first that exists is used.

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
        found = SplitFiles({})
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


def plain_name(path: Path) -> str:
    """Returns a file's name in small letters, without .gz."""
    return path.name.lower().removesuffix(".gz")


def check_folder(source: str) -> Path:
    """Returns the folder of a name, `~` expanded.

    Raises:
        UserError: if it is not a folder.
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
    """Returns the first file that matches; an uncompressed one before a compressed one."""
    matches = [
        path
        for path in folder.iterdir()
        if fnmatch.fnmatchcase(plain_name(path), glob.lower()) and path.is_file()
    ]
    return min(matches, key=lambda path: (path.suffix == ".gz", path.name), default=None)
