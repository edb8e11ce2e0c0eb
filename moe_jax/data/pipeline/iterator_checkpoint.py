"""Compatibility of a saved iterator state with the current data."""

from collections.abc import Mapping
from typing import Any

from moe_jax.data.config import DataConfig
from moe_jax.data.sources.user_files import files_digest, without_paths
from moe_jax.errors import UserError

# Entries of the fingerprint that depend on the files.
_DEPENDS_ON_FILES = {"files", "rows"}


def data_fingerprint(config: DataConfig) -> dict[str, Any]:
    """Returns the names of the tasks, without the paths of files, and a digest of the files."""
    names = [without_paths(name) for name in config.rates]
    if not isinstance(config.task, str):
        names = [
            f"{rate:g} {name}" for name, rate in zip(names, config.rates.values(), strict=True)
        ]
    return {"task": " + ".join(names), "files": files_digest(config.rates)}


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
