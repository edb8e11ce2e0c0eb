"""Which gin files are studies rather than runs."""

import dataclasses

from moe_jax import config
from moe_jax.compare.study import Study
from moe_jax.config_source import ConfigSource
from moe_jax.errors import UserError


def is_study(source: ConfigSource) -> bool:
    """Returns whether gin files set `Study.*`; False for files that cannot be read."""
    try:
        config.parse(dataclasses.replace(source, bindings=()))
    except UserError:
        return False
    return _sets_study()


def check_is_study(source: ConfigSource) -> None:
    """Refuses gin files that set no `Study.*`; what cannot be read is left to its reader.

    Raises:
        UserError: in one line.
    """
    try:
        config.parse(dataclasses.replace(source, bindings=()))
    except UserError:
        return
    if source.files and not _sets_study():
        raise UserError(
            f"{', '.join(source.files)} is no study: it sets no Study.*; see runs/compare_quick.gin"
        )


def _sets_study() -> bool:
    names = (selector.rpartition(".")[2] for _, selector, _ in config.locations)
    return Study.settings_name in names
