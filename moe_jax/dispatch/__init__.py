"""Dispatch: carry tokens to their experts and back, as an assignment says.

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

`register_dispatch` adds one.
"""

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.registry import DISPATCHES, Dispatch, get_dispatch, register_dispatch

__all__ = ["DISPATCHES", "Dispatch", "ExpertNetwork", "get_dispatch", "register_dispatch"]
