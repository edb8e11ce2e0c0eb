"""What a run's own files are, in `run.json`, and what has changed in them when it goes on.

Thousands of files are listed in a file beside it, `data_files.json`.
"""

import collections
import json
from collections.abc import Callable
from typing import Any

from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.sources.file_patterns import printable_path
from moe_jax.errors import UserError
from moe_jax.sharding.processes import check_same, is_main
from moe_jax.training.run_directory import RUN_FILE

FILES_FILE = "data_files.json"
# More files than this are not listed in `run.json` itself.
_MOST_LISTED = 200
_NAMED = 3

# Facts about the files of each task, by its name.
Record = dict[str, Any]


def data_record(config: DataConfig) -> Record:
    """Returns what a run writes down about its own files; nothing for other data."""
    from moe_jax.data.tasks.registry import find_task

    return {own.task: own.record() for own in find_task(config).files}


def write_data(directory: epath.Path, config: DataConfig) -> Record:
    """Returns the record for `run.json`, long lists of files written to a file beside it."""
    record = data_record(config)
    if sum(len(own["files"]) for own in record.values()) <= _MOST_LISTED:
        return record
    if is_main():
        (directory / FILES_FILE).write_text(json.dumps(record))
    return {
        task: {**own, "files": f"{len(own['files'])} files, listed in {FILES_FILE}"}
        for task, own in record.items()
    }


def read_data(directory: epath.Path) -> Record | None:
    """Returns the record of a run, None if it has none or another program wrote it."""
    try:
        record = json.loads((directory / RUN_FILE).read_text()).get("data")
        if record and any(isinstance(own["files"], str) for own in record.values()):
            listed = json.loads((directory / FILES_FILE).read_text())
            same = {t: own["digest"] for t, own in listed.items()} == {
                t: own["digest"] for t, own in record.items()
            }
            record = listed if same else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return record


def find_data(
    config: DataConfig, directory: epath.Path, goes_on: bool, say: Callable[[str], None]
) -> tuple[str, ...]:
    """Finds and reads a run's own files, and says how far it is where that takes long.

    Args:
        config: the data.
        directory: of the run.
        goes_on: the run has been trained on its files before.
        say: prints a line.

    Returns:
        notes: what a user should be told about the files, such as those left out, and what has
            changed in them, if that is meant.

    Raises:
        UserError: if there are none that can be used, or other files than before.
    """
    from moe_jax.data.sources.file_discovery import progress_to
    from moe_jax.data.tasks.registry import find_task

    with progress_to(say):
        notes = find_task(config).notes
    return (*notes, *(check_data(directory, config) if goes_on else ()))


def check_same_files(config: DataConfig) -> None:
    """Makes sure that all processes read the same files. All must call it.

    Raises:
        UserError: on every process, if they do not.
    """
    check_same({f"data of {task}": own["digest"] for task, own in data_record(config).items()})


def check_data(directory: epath.Path, config: DataConfig) -> tuple[str, ...]:
    """Makes sure that a run goes on with the files that it was trained on.

    Returns:
        notes: what has changed, if that is meant.

    Raises:
        UserError: if files were added, removed or changed, and that is not meant.
    """
    changes = data_changes(read_data(directory), data_record(config))
    if not changes:
        return ()
    if config.allow_changed_files:
        return (
            f"{changes}; they are read from their start, and texts held out now may have "
            "been trained on",
        )
    raise UserError(
        f"{changes}. Give the files as they were, start in another --output_dir, or set "
        "Data.allow_changed_files = True to go on with these from their start (texts held out "
        "now may have been trained on)"
    )


def evaluation_notes(directory: epath.Path, config: DataConfig) -> tuple[str, ...]:
    """Returns what to say when a checkpoint is evaluated on files that have changed since."""
    before = read_data(directory) or {}
    now = data_record(config)
    shared = before.keys() & now.keys()
    changes = data_changes({t: before[t] for t in shared}, {t: now[t] for t in shared})
    return (f"{changes}: texts held out now may have been trained on",) if changes else ()


def data_changes(before: Record | None, now: Record) -> str | None:
    """Returns what has changed in the files since a run began, None if nothing has.

    Files that were touched, or moved together, have not changed.
    """
    if before is None or _digests(before) == _digests(now):
        return None
    if not before or not now:
        # Other kinds of data: the position says what has changed.
        return None
    old, new = _by_name(before), _by_name(now)
    edited = {n: None for n in old if n in new and old[n]["sha256"] != new[n]["sha256"]}
    gone = collections.Counter(f["sha256"] for n, f in old.items() if n not in edited)
    come = collections.Counter(f["sha256"] for n, f in new.items() if n not in edited)
    left, extra = gone - come, come - gone
    removed = [n for n, f in old.items() if n not in new and left[f["sha256"]]]
    added = [n for n, f in new.items() if n not in old and extra[f["sha256"]]]
    parts = [
        _named("changed", [f"{n} ({_difference(old[n], new[n])})" for n in edited]),
        _named("removed", removed),
        _named("added", added),
    ]
    what = "; ".join(part for part in parts if part)
    return "the files of the run have changed: " + (
        what or "they are in another order, as they have other names, or are split otherwise"
    )


def _digests(record: Record) -> list[str]:
    return [own["digest"] for own in record.values()]


def _by_name(record: Record) -> dict[str, Any]:
    return {file["name"]: file for own in record.values() for file in own["files"]}


def _difference(old: Any, new: Any) -> str:
    if old["size"] != new["size"]:
        return f"{old['size']:,} -> {new['size']:,} bytes"
    return f"{old['size']:,} bytes as before, with other contents"


def _named(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what} {', '.join(map(printable_path, names[:_NAMED]))}{more}"
