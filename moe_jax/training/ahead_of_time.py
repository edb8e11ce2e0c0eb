"""Compile the training step ahead of time, from the shapes of its arguments."""

from typing import Any

import jax

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel
from moe_jax.training.checkpointing.checkpoint_items import with_default_sharding
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import abstract_state


def lower_train_step(
    step: Any, model: LanguageModel, optimizer: Optimizer, batch: Batch, *, restored: bool
) -> jax.stages.Lowered:
    """Traces and lowers a jitted training step for abstract arguments.

    JAX caches the lowered and compiled program with the jitted function: after compiling the
    result, the first call of `step` with matching arrays does not compile again.

    Args:
        step: the jitted step of `make_train_step`.
        model: the model.
        optimizer: the optimiser.
        batch: shapes, types and, over a mesh, shardings of the batches.
        restored: True if the state will be restored from a checkpoint, whose arrays are committed
            to devices.
    """
    state = abstract_state(model, optimizer)
    if restored:
        state = with_default_sharding(state)
    lowered: jax.stages.Lowered = step.lower(state, batch)
    return lowered
