"""Expands the FILES of a task, names, directories and patterns, to paths.

A name that exists is used literally, whatever characters are in it; otherwise commas are
separators, `#` starts a field, and `*`, `?`, `[` are patterns. Every file is found once, through
however many names, links and patterns.
"""

import dataclasses
import fnmatch
import glob
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Iterator

from moe_jax.formatting import printable
from moe_jax.run_files import is_run

# The problem of a name or pattern that matches no file.
NO_FILE = "names no file"
# Descriptions of paths that are not regular files.
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a directory"),
)


@dataclasses.dataclass
class MatchedFiles:
    """The files that a list of names and patterns matches.

    Attributes:
        paths: the files, each once, in the order of their names.
        problems: reasons by name, for names that are no files.
        others: files of other kinds in the directories, and directories that match a pattern.
        runs: run directories below the directories, which are skipped.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    others: list[str] = dataclasses.field(default_factory=list)
    runs: list[str] = dataclasses.field(default_factory=list)


def printable_path(path: str) -> str:
    r"""Escapes bytes that are not UTF-8, and line ends, as `\xe9` and `\n`."""
    return printable(os.fsencode(path).decode("utf-8", "backslashreplace"))


def match_files(files: str, suffixes: tuple[str, ...]) -> MatchedFiles:
    """Returns the files that names and patterns match.

    Args:
        files: names, directories and patterns, separated by commas.
        suffixes: suffixes of the files that are read in a directory, each with or without `.gz`.
            In a directory without such files, those without a suffix are read.
    """
    result = MatchedFiles()
    # By identity: (found through a link, its name).
    best: dict[object, tuple[bool, bytes, str]] = {}
    for part in split_names(files):
        found = list(_expand(part, suffixes, result))
        if not found and part.strip():
            result.problems.setdefault(part.strip(), NO_FILE)
        for path, linked in found:
            if "://" not in path:
                path = re.sub(r"/(\.?/)+", "/", path)
            identity = _identity(path, result)
            if identity is not None:
                entry = (linked, os.fsencode(path), path)
                best[identity] = min(best.get(identity, entry), entry)
    result.paths = [path for _, _, path in sorted(best.values(), key=lambda entry: entry[1])]
    return result


def split_names(files: str) -> list[str]:
    """Splits at commas that are not part of an existing name, or of a pattern that matches."""
    parts, names = files.split(","), []
    while parts:
        size = _longest(parts)
        names.append(",".join(parts[:size]))
        parts = parts[size:]
    return names


def _longest(parts: list[str]) -> int:
    """Returns the number of first parts that are one name."""
    for matches in (_exists, _matches):
        for size in range(len(parts), 1, -1):
            name = ",".join(parts[:size])
            if "://" not in name and matches(name):
                return size
    return 1


def split_field(files: str) -> tuple[str, str | None]:
    """Returns the names and the field after the `#`, or None.

    A `#` may be part of a name: the longest text that matches files is used as the names.
    """
    places = [len(files), *(i for i in range(len(files) - 1, -1, -1) if files[i] == "#")]
    for place in places:
        if all(map(_matches, split_names(files[:place]))):
            return files[:place], files[place + 1 :] or None
    names, sign, field = files.rpartition("#")
    return (names, field or None) if sign else (files, None)


def _exists(name: str) -> bool:
    return bool(name) and _literal(name) is not None


def _matches(name: str) -> bool:
    """Returns whether a name or pattern matches anything."""
    if "://" in name:
        # Names of remote files are not checked: `#` starts a field.
        return "#" not in name
    if _exists(name):
        return True
    pattern = os.path.expanduser(name.strip())
    return "\0" not in name and next(glob.iglob(pattern, recursive=False), None) is not None


def _literal(name: str) -> str | None:
    """Returns the path of exactly this name, if it exists."""
    for path in (name, name.strip(), os.path.expanduser(name.strip())):
        if path and os.path.lexists(path):
            return path
    return None


def _identity(path: str, result: MatchedFiles) -> object | None:
    """Returns the identity of a file under all of its names; None, with a problem, for others."""
    if "://" in path:
        return path
    try:
        found = os.stat(path)
    except OSError as error:
        link = os.path.islink(path) and not os.path.exists(path)
        reason = "is a link to nothing" if link else f"cannot be read ({error.strerror})"
        result.problems[path] = reason
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = next((name for test, name in _KINDS if test(found.st_mode)), "something else")
        result.problems[path] = f"is {kind}, not a file"
        return None
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _expand(
    part: str, suffixes: tuple[str, ...], result: MatchedFiles
) -> Iterator[tuple[str, bool]]:
    """Yields the files that one name or pattern matches, and whether through a link."""
    if "://" in part:
        yield from ((path, False) for path in _expand_remote(part.strip(), suffixes, result))
        return
    path = _literal(part)
    if path is not None and os.path.isdir(path):
        yield from _in_directory(path, suffixes, result)
    elif path is not None:
        yield path, os.path.islink(path)
    elif "\0" not in part and glob.has_magic(part):
        for found, linked in _glob(os.path.expanduser(part.strip()), result):
            if os.path.isdir(found):
                result.others.append(found)
            else:
                yield found, linked


def _in_directory(
    directory: str, suffixes: tuple[str, ...], result: MatchedFiles
) -> Iterator[tuple[str, bool]]:
    every = list(_walk(directory, result))
    found = [(path, linked) for path, linked in every if _has_suffix(path, suffixes)]
    if not found:
        found = [(p, linked) for p, linked in every if "." not in os.path.basename(p)]
    yield from found
    chosen = {path for path, _ in found}
    result.others += [path for path, _ in every if path not in chosen]


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().removesuffix(".gz").endswith(suffixes)


def _walk(top: str, result: MatchedFiles) -> Iterator[tuple[str, bool]]:
    """Yields the files below a directory that are not hidden, and whether through a link.

    Every directory is entered once, through a path without links if there is one.
    """
    seen: set[tuple[int, int]] = set()
    directories, links = deque([top]), deque[str]()
    while directories or links:
        linked = not directories
        directory = links.popleft() if linked else directories.popleft()
        try:
            where = os.stat(directory)
            if (where.st_dev, where.st_ino) in seen:
                continue
            seen.add((where.st_dev, where.st_ino))
            entries = sorted(os.scandir(directory), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            result.problems[directory] = f"cannot be read ({error.strerror})"
            continue
        if directory != top and is_run({entry.name for entry in entries}):
            result.runs.append(directory)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                (links if linked or entry.is_symlink() else directories).append(entry.path)
            else:
                yield entry.path, linked or entry.is_symlink()


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link to itself, for instance: the problem is reported when it is read.
        return False


def _glob(pattern: str, result: MatchedFiles) -> Iterator[tuple[str, bool]]:
    """Yields the matches of a pattern, with `**` for any number of directories."""
    parts = pattern.split("/")
    if "**" not in parts:
        yield from ((path, os.path.islink(path)) for path in glob.iglob(pattern))
        return
    first = parts.index("**")
    base, rest = "/".join(parts[:first]), parts[first:]
    if not base:
        bases = ["/" if pattern.startswith("/") else "."]
    else:
        bases = glob.glob(base) if glob.has_magic(base) else [base]
    for directory in filter(os.path.isdir, bases):
        for path, linked in _walk(directory, result):
            names = os.path.relpath(path, directory).split("/")
            if _fits(names, rest):
                yield (os.path.normpath(path) if directory == "." else path), linked


def _fits(names: list[str], patterns: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        after = patterns[1:] or ["*"]
        return any(_fits(names[i:], after) for i in range(len(names)))
    fits = bool(names) and fnmatch.fnmatchcase(names[0], patterns[0])
    return fits and _fits(names[1:], patterns[1:])


def _expand_remote(path: str, suffixes: tuple[str, ...], result: MatchedFiles) -> list[str]:
    """Returns the files of a remote path, such as `gs://`."""
    import tensorflow as tf

    if tf.io.gfile.isdir(path):
        found = []
        for folder, inside, names in tf.io.gfile.walk(path):
            folder = folder.rstrip("/")
            if folder != path.rstrip("/") and is_run({n.rstrip("/") for n in (*inside, *names)}):
                result.runs.append(folder)
            elif not any(folder.startswith(f"{run}/") for run in result.runs):
                found += [f"{folder}/{name}" for name in names if _has_suffix(name, suffixes)]
        return found
    if tf.io.gfile.exists(path):
        return [path]
    return list(tf.io.gfile.glob(path))
