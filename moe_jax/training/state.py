"""What training carries from step to step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.optimizers import Optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that a step reads and writes; donated to it.

    Attributes:
        step: steps done, int32 scalar.
        variables: parameters and router state.
        optimizer_state: optax's.
    """

    step: jax.Array
    variables: Variables
    optimizer_state: Any


def make_state(model: LanguageModel, optimizer: Optimizer, seed: int) -> TrainState:
    """Makes the state before the first step, on the device, in one compiled function."""

    def create(key: jax.Array) -> TrainState:
        variables = model.init(key)
        return TrainState(
            jnp.zeros((), jnp.int32), variables, optimizer.transform.init(variables.params)
        )

    return jax.jit(create)(jax.random.key(seed))


def abstract_state(model: LanguageModel, optimizer: Optimizer) -> TrainState:
    """Returns the shapes and types of the state, for restoring."""
    variables = model.abstract()
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    optimizer_state = jax.eval_shape(optimizer.transform.init, variables.params)
    return TrainState(step, variables, optimizer_state)
