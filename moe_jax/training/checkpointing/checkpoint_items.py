"""What a checkpoint is made of: arrays by name, and the position in the training data."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from moe_jax.models.functional import Variables
from moe_jax.training.state import TrainState
from moe_jax.training.update_guard import GuardState, make_guard

_GUARD_FIELDS = dataclasses.fields(GuardState)


def arrays_of(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns the arrays of a state, or their shapes, by item and name."""
    return {
        "variables": flat(tree_of(state.variables)),
        "optimizer": listed(state.optimizer_state),
        "guard": {field.name: getattr(state.guard, field.name) for field in _GUARD_FIELDS},
    }


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Returns the arrays of an item by name."""
    by_name: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            by_name |= {f"{name}/{inner}": leaf for inner, leaf in value.items()}
        else:
            by_name[name] = value
    return by_name


def scalar(value: int, like: Any) -> jax.Array:
    """Returns an int32 scalar placed like an abstract one."""
    sharding = placed(like).sharding
    return jax.make_array_from_callback((), sharding, lambda index: np.asarray(value, np.int32))


def new_guard(abstract: GuardState) -> GuardState:
    """Returns the guard's state before the first step, placed like the rest."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, placed(abstract))
    guard: GuardState = jax.jit(make_guard, out_shardings=shardings)()
    return guard


def first_line(error: Exception) -> str:
    """Returns what an exception says, in one short line."""
    text = " ".join(str(error).split()).partition(" See full TensorStore details")[0]
    return text[:120] or type(error).__name__


def comparable(metrics: Mapping[str, float] | None) -> dict[str, float] | None:
    """Returns what checkpoints are compared by; None for an evaluation that is not finite."""
    if metrics is None or not math.isfinite(metrics["causal_loss"]):
        return None
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def not_finite(names: dict[str, list[str]]) -> str:
    """Says which arrays, by item, have values that are not finite."""
    found = [f"{item}: {name}" for item, of_item in names.items() for name in of_item]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more} {'have' if more else 'has'} values that are not finite"


def tree_of(variables: Variables) -> dict[str, Any]:
    """Returns variables as the dictionaries that are saved."""
    return {"params": variables.params, "router_state": variables.router_state}


def placed(tree: Any) -> Any:
    """Puts arrays that say nothing else on one device, wherever they were saved from."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device),
        tree,
    )


def listed(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path: a form that does not depend on optax's own classes."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
