"""The state before the first step with the arrays of another run's checkpoint.

The parameters have to be the same, apart from the router's: a learned router has a matrix, an
unlearned one has none. Router state is taken where both routers have it, under the same name and
with the same shape, such as the thresholds of expert choice; the rest of it is dropped, and made
new for the new router.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from moe_jax.errors import UserError
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.training.checkpointing.checkpoint_items import (
    checkpoint_arrays,
    flatten_names,
    variables_tree,
)
from moe_jax.training.checkpointing.checkpoint_manager import CheckpointManager
from moe_jax.training.checkpointing.checksums import shapes
from moe_jax.training.checkpointing.mismatch import CheckpointMismatch, differing
from moe_jax.training.loss_spike_guard import make_guard
from moe_jax.training.optimizers import Optimizer
from moe_jax.training.state import TrainState, abstract_state, state_shardings

_PARAMS, _STATE = "params/", "router_state/"
_ROUTER_KERNEL = "router_kernel"


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Which arrays of the item `variables` are taken from a checkpoint, by name.

    Attributes:
        taken: arrays that both have.
        dropped: arrays of the checkpoint only.
        made: arrays of the new model only, which are initialised.
    """

    taken: tuple[str, ...]
    dropped: tuple[str, ...]
    made: tuple[str, ...]

    def __str__(self) -> str:
        """Describes it in one line."""
        params = sum(name.startswith(_PARAMS) for name in self.taken)
        parts = [f"{params} arrays of parameters"]
        parts += [_named(n for n in self.taken if n.startswith(_STATE))]
        text = f"taken: {', '.join(filter(None, parts))}"
        for what, names in (("dropped", self.dropped), ("made new", self.made)):
            if names:
                text += f"; {what}: {_named(names)}"
        return text


def plan_transfer(saved: Mapping[str, str], now: Mapping[str, str]) -> Transfer:
    """Decides which arrays are taken.

    Args:
        saved: types and shapes of the arrays of the checkpoint, by name.
        now: those of the new model.

    Raises:
        ValueError: naming the first differences, if the parameters differ in more than the router.
    """

    def needed(shapes: Mapping[str, str]) -> dict[str, str]:
        return {n: shape for n, shape in shapes.items() if n.startswith(_PARAMS)}

    params, wanted = needed(saved), needed(now)
    for name in [n for n in params.keys() ^ wanted.keys() if n.endswith(f"/{_ROUTER_KERNEL}")]:
        params.pop(name, None)
        wanted.pop(name, None)
    if params != wanted:
        raise ValueError(differing(params, wanted))
    taken = tuple(name for name in now if saved.get(name) == now[name])
    return Transfer(
        taken,
        dropped=tuple(name for name in saved if name not in taken),
        made=tuple(name for name in now if name not in taken),
    )


def transfer_state(
    checkpoints: CheckpointManager, step: int, model: LanguageModel, optimizer: Optimizer, seed: int
) -> tuple[TrainState, Transfer]:
    """Returns the state before the first step with a fresh optimiser, and what was taken.

    Args:
        checkpoints: the checkpoints of the other run.
        step: the step of the checkpoint.
        model: the new model.
        optimizer: the new optimiser.
        seed: the seed of the arrays that are made new.

    Raises:
        CheckpointMismatch: if the parameters of the checkpoint are those of another model.
        UserError: if the checkpoint is damaged.
    """
    abstract = flatten_names(variables_tree(model.abstract()))
    saved = checkpoints.shapes(step).get("variables")
    now = shapes(abstract)
    try:
        # Formats 1 and 2 do not say what they have: it has to be all.
        transfer = plan_transfer(now if saved is None else saved, now)
    except ValueError as error:
        raise CheckpointMismatch(str(error), "variables", step) from None
    tree: dict[str, dict[str, Any]] = {"params": {}, "router_state": {}}
    for name in (*transfer.taken, *transfer.dropped):
        item, _, inner = name.partition("/")
        is_taken = name in transfer.taken
        array = abstract[name] if is_taken else _abstract(saved or {}, name, model)
        tree[item][inner] = array
    restored = flatten_names(checkpoints.restore_items(step, {"variables": tree})["variables"])
    taken = {name: restored[name] for name in transfer.taken}
    return _complete(taken, model, optimizer, seed), transfer


def continue_optimizer(
    checkpoints: CheckpointManager,
    step: int,
    state: TrainState,
    model: LanguageModel,
    optimizer: Optimizer,
) -> TrainState:
    """Returns the state with the optimiser's moments and their counts from the checkpoint.

    Learning-rate schedules start anew.

    Raises:
        CheckpointMismatch: if the optimiser, or the parameters that it trains, are others.
        UserError: if the checkpoint is damaged.
    """
    abstract = abstract_state(model, optimizer)
    wanted = checkpoint_arrays(abstract)["optimizer"]
    restored = checkpoints.restore_items(step, {"optimizer": wanted})["optimizer"]
    structure = jax.tree.structure(abstract.optimizer_state)
    moments = jax.tree.unflatten(structure, [restored[name] for name in wanted])

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def at_first_step(node: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, node) if is_schedule(node) else node

    moments = jax.tree.map(at_first_step, moments, is_leaf=is_schedule)
    return dataclasses.replace(state, optimizer_state=moments)


def _complete(
    taken: dict[str, jax.Array], model: LanguageModel, optimizer: Optimizer, seed: int
) -> TrainState:
    """Makes the rest of the state in one compiled function, which takes over the arrays."""

    def create(taken: dict[str, jax.Array], key: jax.Array) -> TrainState:
        # The compiler leaves out the initial values that are not used.
        arrays = flatten_names(variables_tree(model.init(key))) | taken
        params, router_state = (
            {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            for prefix in (_PARAMS, _STATE)
        )
        variables = Variables(params, router_state)
        return TrainState(jnp.zeros((), jnp.int32), variables, optimizer.init(params), make_guard())

    shardings = state_shardings(model, optimizer)
    made: TrainState = jax.jit(create, out_shardings=shardings, donate_argnums=0)(
        taken, jax.random.key(seed)
    )
    return made


def _abstract(saved: Mapping[str, str], name: str, model: LanguageModel) -> jax.ShapeDtypeStruct:
    """Returns an array of the checkpoint that the new model does not have."""
    match = re.fullmatch(r"(\w+)\[([\d,]*)\]", saved[name])
    if match is None:
        raise UserError(f"the checkpoint has an array {name} of an unknown type, {saved[name]}")
    shape = tuple(int(size) for size in match[2].split(",") if size)
    sharding = model.partition.replicated if model.partition.is_sharded else None
    return jax.ShapeDtypeStruct(shape, jnp.dtype(match[1]), sharding=sharding)


def _named(names: Iterable[str]) -> str:
    """Returns the last components of names, each once."""
    return ", ".join(sorted({name.rsplit("/", 1)[-1] for name in names}))
