"""Files of a run directory that lie elsewhere: writing to them would be writing there."""

import os

from etils import epath

from moe_jax.errors import UserError


def refuse_external_symlinks(directory: epath.Path) -> None:
    """Refuses a run directory on this machine with links to files outside it.

    Training writes its records over what is there. A run directory that comes from elsewhere could
    have any of the user's files under their names. Links to directories stand: checkpoints on a
    larger disk are common.

    Raises:
        UserError: with the link and where it leads.
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
