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
    names = (selector.rpartition(".")[2] for _, selector, _ in config.locations)
    return Study.settings_name in names
