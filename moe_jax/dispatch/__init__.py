"""Execute an assignment: carry tokens to their experts and back.

Every transport is a function `dispatch(assignment, x_PND, expert_fn) -> y_PND` with

    y[p, n] = sum over the experts e that take token n of  weight * expert_e(x[p, n])

where `expert_fn` maps rows [E, R, D] to [E, R, D], expert by expert. A token that no expert
takes gets 0. All of them equal `oracle`, forward and gradients, on every assignment.
"""

from collections.abc import Callable

from moe_jax.dispatch.gather import gather
from moe_jax.dispatch.oracle import oracle
from moe_jax.errors import UserError, nearest
from moe_jax.routing.assignment import Assignment
from moe_jax.types import ActivationsPND, RowsERD

ExpertFn = Callable[[RowsERD], RowsERD]
Dispatch = Callable[[Assignment, ActivationsPND, ExpertFn], ActivationsPND]

DISPATCHES: dict[str, Dispatch] = {"gather": gather, "oracle": oracle}


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
