"""Compiles the training step before there is a batch, for the shapes that it will have."""

from typing import Any

import jax

from moe_jax.data.batch import Batch
from moe_jax.models.functional import LanguageModel
from moe_jax.training.checkpointing.checkpoint_items import placed
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import abstract_state


def lower_train_step(
    step: Any, model: LanguageModel, optimizer: Optimizer, batch: Batch, *, restored: bool
) -> jax.stages.Lowered:
    """Traces and lowers a jitted step; compiling the result spares the step's first call that.

    JAX keeps what it has lowered and compiled with the jitted function, so that the function does
    not do it again if it is called with arrays like these.

    Args:
        step: of `make_train_step`.
        model: the model.
        optimizer: the optimiser.
        batch: shapes, types and, over a mesh, shardings of the batches.
        restored: whether the state will come from a checkpoint, whose arrays are bound to devices.
    """
    state = abstract_state(model, optimizer)
    if restored:
        state = placed(state)
    lowered: jax.stages.Lowered = step.lower(state, batch)
    return lowered
