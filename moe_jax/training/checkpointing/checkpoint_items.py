"""Convert a training state to the items of a checkpoint: arrays by name."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from moe_jax.models.functional import Variables
from moe_jax.training.error_message import one_line
from moe_jax.training.loss_spike_guard import GuardState, make_guard
from moe_jax.training.state import TrainState

_GUARD_FIELDS = dataclasses.fields(GuardState)


# 3: shapes and checksums of all arrays, and the guard's state.
# 2: the position in the data by stream; 1 had that of the only stream.
FORMAT_VERSION = 3
READABLE_FORMATS = (1, 2, 3)


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read, or whose arrays differ from those that were saved."""


def checkpoint_arrays(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns the arrays of a state, or of an abstract state, by item and name."""
    return {
        "variables": flatten_names(variables_tree(state.variables)),
        "optimizer": leaves_by_path(state.optimizer_state),
        "guard": {field.name: getattr(state.guard, field.name) for field in _GUARD_FIELDS},
    }


def flatten_names(tree: dict[str, Any]) -> dict[str, Any]:
    """Flattens an item of at most two levels to arrays by name."""
    by_name: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            by_name |= {f"{name}/{inner}": leaf for inner, leaf in value.items()}
        else:
            by_name[name] = value
    return by_name


def make_scalar(value: int, like: Any) -> jax.Array:
    """Returns an int32 scalar with the sharding of an abstract one."""
    sharding = with_default_sharding(like).sharding
    return jax.make_array_from_callback((), sharding, lambda index: np.asarray(value, np.int32))


def make_sharded_guard(abstract: GuardState) -> GuardState:
    """Returns the initial state of the update guard, with the shardings of an abstract one."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, with_default_sharding(abstract))
    guard: GuardState = jax.jit(make_guard, out_shardings=shardings)()
    return guard


def orbax_message(error: Exception) -> str:
    """Returns the message of an error of Orbax in one line, without details of TensorStore."""
    return one_line(error, 1000).partition(" See full TensorStore details")[0][:120]


def finite_metrics(metrics: Mapping[str, float] | None) -> dict[str, float] | None:
    """Returns the finite metrics of an evaluation; None if its causal loss is not finite."""
    if metrics is None or not math.isfinite(metrics["causal_loss"]):
        return None
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def describe_non_finite(names: dict[str, list[str]]) -> str:
    """Describes which arrays, given by item, have non-finite values."""
    found = [f"{item}: {name}" for item, of_item in names.items() for name in of_item]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more} {'have' if more else 'has'} values that are not finite"


def variables_tree(variables: Variables) -> dict[str, Any]:
    """Returns variables as the nested dictionaries that are saved."""
    return {"params": variables.params, "router_state": variables.router_state}


def with_default_sharding(tree: Any) -> Any:
    """Assigns a single device to abstract arrays without a sharding."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or device),
        tree,
    )


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Returns the leaves by path, a form that does not depend on the classes of optax."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
