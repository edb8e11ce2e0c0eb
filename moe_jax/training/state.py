"""The training state, and its shapes and shardings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.loss_spike_guard import GuardState, make_guard
from moe_jax.training.optimizers import Optimizer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The state that a training step updates; its buffers are donated to the step.

    Attributes:
        step: steps done, int32 scalar.
        variables: parameters and router state.
        optimizer_state: state of the optax transformation, of the trained parameters only.
        guard: statistics that distinguish a loss spike from normal variation.
    """

    step: jax.Array
    variables: Variables
    optimizer_state: Any
    guard: GuardState


def make_state(model: LanguageModel, optimizer: Optimizer, seed: int) -> TrainState:
    """Creates the state before the first step, on the devices, in one compiled function."""

    def create(key: jax.Array) -> TrainState:
        variables = model.init(key)
        optimizer_state = optimizer.init(variables.params)
        return TrainState(jnp.zeros((), jnp.int32), variables, optimizer_state, make_guard())

    return jax.jit(create, out_shardings=state_shardings(model, optimizer))(jax.random.key(seed))


def abstract_state(model: LanguageModel, optimizer: Optimizer) -> TrainState:
    """Returns the shapes, types and, over a mesh, shardings of the state, for restoring."""
    state = _shapes(model, optimizer)
    shardings = state_shardings(model, optimizer)
    if shardings is None:
        return state
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings
    )


def state_shardings(model: LanguageModel, optimizer: Optimizer) -> Any:
    """Returns the shardings of the state over the model's mesh; None without a mesh.

    The optimiser state of a parameter is sharded like the parameter. Factored moments of
    Adafactor, which lack one axis of the parameter, are sharded along the remaining axes.
    """
    partition = model.partition
    if not partition.is_sharded:
        return None
    state = _shapes(model, optimizer)
    specs = {name: partition.stored(axes) for name, axes in model.logical_axes().items()}
    shapes = {name: value.shape for name, value in state.variables.params.items()}

    def of_leaf(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.sharding.NamedSharding:
        names = [part.key for part in path if isinstance(part, jax.tree_util.DictKey)]
        name = next((n for n in reversed(names) if n in specs), None)
        spec = None if name is None else _spec_like(leaf.shape, shapes[name], specs[name])
        return partition.sharding(spec or PartitionSpec())

    optimizer_state = jax.tree_util.tree_map_with_path(of_leaf, state.optimizer_state)
    replicated: Any = partition.replicated
    guard = jax.tree.map(lambda _: replicated, state.guard)
    return TrainState(replicated, model.shardings(), optimizer_state, guard)


def _shapes(model: LanguageModel, optimizer: Optimizer) -> TrainState:
    variables: Variables = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), model.abstract()
    )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32)
    optimizer_state = jax.eval_shape(optimizer.init, variables.params)
    return TrainState(step, variables, optimizer_state, jax.eval_shape(make_guard))


def _spec_like(
    shape: tuple[int, ...], of_shape: tuple[int, ...], spec: PartitionSpec
) -> PartitionSpec | None:
    """Derives the spec of an array from that of a parameter with at most one additional axis."""
    if shape == of_shape:
        return spec
    entries = [*spec, *[None] * (len(of_shape) - len(spec))]
    for axis in range(len(of_shape)):
        if shape == of_shape[:axis] + of_shape[axis + 1 :]:
            return PartitionSpec(*entries[:axis], *entries[axis + 1 :])
    return None
