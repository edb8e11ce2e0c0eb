"""Execute an assignment: carry tokens to their experts and back.

Every transport is a function `dispatch(assignment, x_PND, experts) -> y_PND` with

    y[p, n] = sum over the experts e that take token n of  weight * expert_e(x[p, n])

where `experts` is an `ExpertNetwork`; called, it maps rows [E, R, D] to [E, R, D], expert by
expert. A token that no expert takes gets 0. All of them equal `oracle`, forward and gradients, on
every assignment.

| transport | how                                                   | when                    |
|-----------|-------------------------------------------------------|-------------------------|
| `grouped` | rows sorted by expert; work follows the chosen pairs  | the default             |
| `gather`  | static slots, batched products; without a capacity in | many static shapes to   |
|           | rounds that follow the busiest expert                 | compile for; comparison |
| `oracle`  | one-hot matrix products                               | tests                   |
"""

from collections.abc import Callable
from typing import Literal

from moe_jax.dispatch.gather import gather
from moe_jax.dispatch.grouped import grouped
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.oracle import oracle
from moe_jax.errors import UserError, nearest
from moe_jax.routing.assignment import Assignment
from moe_jax.types import ActivationsPND

Dispatch = Callable[[Assignment, ActivationsPND, ExpertNetwork], ActivationsPND]

DispatchName = Literal["grouped", "gather", "oracle"]
DISPATCHES: dict[str, Dispatch] = {"grouped": grouped, "gather": gather, "oracle": oracle}


def get_dispatch(name: str) -> Dispatch:
    """Returns the transport of that name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in DISPATCHES:
        raise UserError(
            f"unknown dispatch {name!r}; known: {', '.join(sorted(DISPATCHES))}."
            + nearest(name, DISPATCHES)
        )
    return DISPATCHES[name]
