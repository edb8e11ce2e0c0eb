"""What a saved position in the data belongs to, and whether it can be gone on from."""

from collections.abc import Mapping
from typing import Any

from moe_jax.data.config import DataConfig
from moe_jax.data.sources.user_files import files_digest, without_paths
from moe_jax.errors import UserError

# What changes with the files.
_OF_FILES = {"files", "rows"}


def data_fingerprint(config: DataConfig) -> dict[str, Any]:
    """Returns the names of the tasks, without the places of files, and what the files are."""
    names = [without_paths(name) for name in config.rates]
    if not isinstance(config.task, str):
        names = [
            f"{rate:g} {name}" for name, rate in zip(names, config.rates.values(), strict=True)
        ]
    return {"task": " + ".join(names), "files": files_digest(config.rates)}


def can_restore(
    what: str, saved: Mapping[str, Any], now: Mapping[str, Any], changed_files: bool
) -> bool:
    """Returns whether a position can be restored; False if the files are to be read anew.

    Args:
        what: the position is in, such as `data`.
        saved: what the position was saved for.
        now: what it would be restored for.
        changed_files: other files than those of the position are meant.

    Raises:
        UserError: if the position does not fit the configuration, or the files are not those that
            it was saved for and that is not meant.
    """
    before_split = now["files"] is not None and "files" not in saved
    if before_split:
        # Such a position has the places of the files in its task.
        saved = {**saved, "task": now["task"]}
    changed = {name for name in now if saved.get(name) != now[name]}
    if not changed:
        return True
    of_files = "files" in changed and changed <= _OF_FILES
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
