"""Saved iterator states, and their compatibility with the current data."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from moe_jax import strict_json
from moe_jax.data.config import DataConfig
from moe_jax.data.sources.file_tasks import without_paths
from moe_jax.errors import UserError

# Entries of the fingerprint that depend on the files.
_DEPENDS_ON_FILES = {"files", "rows"}
_FINGERPRINT = "fingerprint.json"
# Directory of the only shard's state in format 1.
_FORMAT_1 = "process_0"
# Values of the fingerprint that format 1 does not contain.
_NOT_IN_FORMAT_1 = {
    "shards": 1,
    "shuffle": True,
    "objective": "lm",
    "targets_length": 0,
    "cached": False,
}
# Entries of the file beside the fingerprint.
_BATCHES, _IS_OF_ROWS = "batches", "is_of_rows"


@dataclasses.dataclass(frozen=True)
class ShardPosition:
    """What is saved of a data shard beside the state of its pipeline.

    Attributes:
        fingerprint: the values that the position depends on, see `position_fingerprint`.
        batches: number of batches that were read; None in states of earlier versions.
        is_of_rows: whether cached rows were read, which have no other state.
    """

    fingerprint: Mapping[str, Any]
    batches: int | None
    is_of_rows: bool = False

    def write(self, directory: epath.Path, index: int) -> epath.Path:
        """Writes the position of shard `index`; returns the directory of the shard's state."""
        shard_directory = directory / f"stream_{index}"
        shard_directory.mkdir(parents=True, exist_ok=True)
        entries = {**self.fingerprint, _BATCHES: self.batches, _IS_OF_ROWS: self.is_of_rows}
        (shard_directory / _FINGERPRINT).write_text(strict_json.dumps(entries, indent=1))
        return shard_directory


def read_position(directory: epath.Path, index: int) -> tuple[epath.Path, ShardPosition]:
    """Reads the position of shard `index`; returns the directory of the shard's state, too."""
    shard_directory = directory / f"stream_{index}"
    for other in ("stream_0", _FORMAT_1):
        if not shard_directory.exists():
            shard_directory = directory / other
    saved = {**_NOT_IN_FORMAT_1, **json.loads((shard_directory / _FINGERPRINT).read_text())}
    batches, is_of_rows = saved.pop(_BATCHES, None), saved.pop(_IS_OF_ROWS, False)
    return shard_directory, ShardPosition(saved, batches, is_of_rows)


def position_fingerprint(
    config: DataConfig, data: Mapping[str, Any], vocabulary: str
) -> dict[str, Any]:
    """Returns the values that a position in the training data depends on.

    Args:
        config: configuration of the data.
        data: tasks and files, see `data_fingerprint`.
        vocabulary: see `vocabulary_digest`.
    """
    return {
        **data,
        "sequence_length": config.sequence_length,
        "batch_size": config.batch_size,
        "shards": config.shards,
        "seed": config.seed,
        "pack": config.pack,
        "shuffle": config.shuffle,
        "objective": config.objective,
        "targets_length": config.targets_length,
        "cached": config.cache_dir is not None,
        "vocabulary": vocabulary,
    }


def vocabulary_digest(pieces: bytes) -> str:
    """Returns a digest of a SentencePiece model with T5's sentinels."""
    return hashlib.sha256(pieces).hexdigest()[:16]


def data_fingerprint(config: DataConfig) -> dict[str, Any]:
    """Returns the names of the tasks, without the paths of files, and a digest of the files."""
    from moe_jax.data.sources.user_files import files_digest

    return {"task": task_names(config), "files": files_digest(config.rates)}


def task_names(config: DataConfig) -> str:
    """Returns the names of the tasks with their rates, without the paths of files."""
    names = [without_paths(name) for name in config.rates]
    if not isinstance(config.task, str):
        names = [
            f"{rate:g} {name}" for name, rate in zip(names, config.rates.values(), strict=True)
        ]
    return " + ".join(names)


def can_restore(
    what: str, saved: Mapping[str, Any], now: Mapping[str, Any], changed_files: bool
) -> bool:
    """Returns whether a state can be restored; False if the files are read from the start.

    Args:
        what: name of the iterator in messages, such as `data`.
        saved: fingerprint of the data of the saved state.
        now: fingerprint of the current data.
        changed_files: whether the files may have changed.

    Raises:
        UserError: if the state does not fit the configuration, or the files have changed and that
            is not allowed.
    """
    before_split = now["files"] is not None and "files" not in saved
    if before_split:
        # Such a state has the paths of the files in its task.
        saved = {**saved, "task": now["task"]}
    changed = {name for name in now if saved.get(name) != now[name]}
    if not changed:
        return True
    of_files = "files" in changed and changed <= _DEPENDS_ON_FILES
    if of_files and changed_files:
        return False
    if of_files:
        reason = (
            "it was saved by a version that held out other texts"
            if before_split
            else "they are not the files that were trained on"
        )
        raise UserError(
            f"the saved position in the {what} does not fit the files: {reason}. Give the files "
            "as they were, start in another --output_dir, or set Data.allow_changed_files = True "
            "to go on with these from their start (texts held out now may have been trained on)"
        )
    shown = "; ".join(f"{k}: {saved.get(k)!r} -> {now[k]!r}" for k in now if k in changed)
    raise UserError(
        f"the saved position in the {what} does not fit this configuration ({shown}); go back "
        "to it, or start in another --output_dir"
    )
