"""Refuse run directories with symbolic links to files outside of them."""

import os

from etils import epath

from moe_jax.errors import UserError


def refuse_external_symlinks(directory: epath.Path) -> None:
    """Refuses a local run directory that contains symbolic links to files outside it.

    Training overwrites the files of a run directory. In a directory from elsewhere their names
    could be links to any of the user's files. Links to directories are allowed, since checkpoints
    on a larger disk are common.

    Raises:
        UserError: naming the link and its target.
    """
    if "://" in str(directory) or not os.path.isdir(directory):
        return
    root = os.path.realpath(directory)
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_symlink() or entry.is_dir():
                continue
            target = os.path.realpath(entry.path)
            if os.path.commonpath([root, target]) != root:
                raise UserError(
                    f"{entry.path} is a link to {target}, outside the run directory, and training "
                    "would write there; remove it, or put a copy of the file in its place"
                )
