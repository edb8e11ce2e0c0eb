"""Registers the configured task with seqio when it is imported.

For seqio's own tools, which import modules to register tasks:

    MOE_JAX_GIN_BINDINGS='TASK=c4' python -m seqio.scripts.cache_tasks_main \
        --module_import=moe_jax.commands.seqio_tasks --tasks='c4__.*' ...

`MOE_JAX_GIN_FILES` names gin files, `MOE_JAX_GIN_BINDINGS` values over them; `;` separates several.
"""

import os

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.data.tasks.registry import find_task


def _listed(variable: str) -> list[str]:
    return [part.strip() for part in os.environ.get(variable, "").split(";") if part.strip()]


task = find_task(
    experiments.load_data(
        ConfigSource(tuple(_listed("MOE_JAX_GIN_FILES")), tuple(_listed("MOE_JAX_GIN_BINDINGS")))
    )
)
