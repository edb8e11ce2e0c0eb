"""The manifest of the files that a run trains on, and the changes since the run began.

The manifest is part of `run.json`; a long list of files is written to `data_files.json` beside it.
"""

import collections
import hashlib
import json
from collections.abc import Callable
from typing import Any

from etils import epath

from moe_jax.data.config import DataConfig
from moe_jax.data.pipeline.row_directory import read_row_directory, vocabulary_bytes
from moe_jax.data.sources.file_patterns import printable_path
from moe_jax.errors import UserError
from moe_jax.sharding.processes import check_consistent, is_main
from moe_jax.training.run_directory.run_directory import RUN_FILE

FILES_FILE = "data_files.json"
# The longest list of files in `run.json` itself.
_MAX_LISTED = 200
# Files named in a message.
_MAX_NAMED = 3

# Facts about the files of each task, by name of the task.
Manifest = dict[str, Any]


def data_manifest(config: DataConfig) -> Manifest:
    """Returns the manifest of the files of a task; empty for tasks that are not made of files.

    That of cached rows names the files that the rows were made of.
    """
    if config.rows_dir is not None:
        return dict(read_row_directory(config.rows_dir).facts.manifest)
    from moe_jax.data.tasks.registry import find_task

    return {files.task: files.record() for files in find_task(config).files}


def write_data_manifest(directory: epath.Path, config: DataConfig) -> Manifest:
    """Returns the manifest for `run.json`; writes a long list of files to a file beside it."""
    manifest = data_manifest(config)
    if sum(len(entry["files"]) for entry in manifest.values()) <= _MAX_LISTED:
        return manifest
    if is_main():
        (directory / FILES_FILE).write_text(json.dumps(manifest))
    return {
        task: {**entry, "files": f"{len(entry['files'])} files, listed in {FILES_FILE}"}
        for task, entry in manifest.items()
    }


def vocabulary_digest(config: DataConfig) -> str | None:
    """Returns the SHA-256 of the vocabulary's file, by which a copy of it is recognised.

    Returns:
        None if the file cannot be read.
    """
    if config.rows_dir is not None:
        return read_row_directory(config.rows_dir).facts.vocabulary_digest
    try:
        contents = vocabulary_bytes(config)
    except OSError:
        return None
    return None if contents is None else hashlib.sha256(contents).hexdigest()


def read_data_manifest(directory: epath.Path) -> Manifest | None:
    """Returns the manifest of a run; None if it has none or cannot be read."""
    try:
        manifest: Manifest | None = json.loads((directory / RUN_FILE).read_text()).get("data")
        if manifest and any(isinstance(entry["files"], str) for entry in manifest.values()):
            listed = json.loads((directory / FILES_FILE).read_text())
            same = {task: entry["digest"] for task, entry in listed.items()} == {
                task: entry["digest"] for task, entry in manifest.items()
            }
            manifest = listed if same else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest


def find_data_files(
    config: DataConfig, directory: epath.Path, resumes: bool, say: Callable[[str], None]
) -> tuple[str, ...]:
    """Finds and reads the files of a run, reporting progress if that takes long.

    Args:
        config: settings of the data.
        directory: the run directory.
        resumes: True if the run has been trained on its files before.
        say: prints a line.

    Returns:
        notes for the user about the files, such as files left out and permitted changes.

    Raises:
        UserError: if there are no usable files, or the files have changed without permission.
    """
    if config.rows_dir is not None:
        notes = read_row_directory(config.rows_dir).facts.notes
    else:
        from moe_jax.data.sources.file_discovery import progress_to
        from moe_jax.data.tasks.registry import find_task

        with progress_to(say):
            notes = find_task(config).notes
    return (*notes, *(check_data(directory, config) if resumes else ()))


def check_same_files(config: DataConfig) -> None:
    """Checks that all processes read the same files. All processes must call it.

    Raises:
        UserError: on every process, if the files differ.
    """
    facts = {f"data of {task}": entry["digest"] for task, entry in data_manifest(config).items()}
    if config.rows_dir is not None:
        facts["cached rows"] = read_row_directory(config.rows_dir).facts.dumps()
    check_consistent(facts)


def check_data(directory: epath.Path, config: DataConfig) -> tuple[str, ...]:
    """Checks that a resumed run has the files that it was trained on.

    Returns:
        a note about the changes, if `Data.allow_changed_files` permits them.

    Raises:
        UserError: if files were added, removed or changed without permission.
    """
    changes = data_changes(read_data_manifest(directory), data_manifest(config))
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
    """Returns notes for evaluating a checkpoint on files that have changed since training."""
    before = read_data_manifest(directory) or {}
    now = data_manifest(config)
    shared = before.keys() & now.keys()
    changes = data_changes({t: before[t] for t in shared}, {t: now[t] for t in shared})
    return (f"{changes}: texts held out now may have been trained on",) if changes else ()


def data_changes(before: Manifest | None, now: Manifest) -> str | None:
    """Describes the changes in the files since a run began; returns None if there are none.

    A new modification time, or moving all files together, is not a change.
    """
    if before is None or _digests(before) == _digests(now):
        return None
    if not before or not now:
        # Another kind of data: restoring the position of the data iterator reports it.
        return None
    old, new = _by_name(before), _by_name(now)
    edited = {n: None for n in old if n in new and old[n]["sha256"] != new[n]["sha256"]}
    old_contents = collections.Counter(f["sha256"] for n, f in old.items() if n not in edited)
    new_contents = collections.Counter(f["sha256"] for n, f in new.items() if n not in edited)
    left, extra = old_contents - new_contents, new_contents - old_contents
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


def _digests(manifest: Manifest) -> list[str]:
    return [entry["digest"] for entry in manifest.values()]


def _by_name(manifest: Manifest) -> dict[str, Any]:
    return {file["name"]: file for entry in manifest.values() for file in entry["files"]}


def _difference(old: Any, new: Any) -> str:
    if old["size"] != new["size"]:
        return f"{old['size']:,} -> {new['size']:,} bytes"
    return f"{old['size']:,} bytes as before, with other contents"


def _named(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return f"{what} {', '.join(map(printable_path, names[:_MAX_NAMED]))}{more}"
