"""Dispatch: moves tokens to the experts of their assignment and combines the outputs.

Every dispatch is a function `dispatch(assignment, x_PND, experts) -> y_PND` with

    y[p, n] = sum over the experts e of token n of  weight * expert_e(x[p, n])

where `experts` is an `ExpertNetwork`, which maps rows [E, R, D] to [E, R, D], expert by expert. The
output of a token without an expert is 0. Outputs and gradients equal those of `oracle` for every
assignment.

| dispatch  | algorithm                                             | use                     |
|-----------|-------------------------------------------------------|-------------------------|
| `grouped` | rows sorted by expert; cost proportional to the       | the default             |
|           | chosen pairs                                          |                         |
| `gather`  | static slots, batched products; without a capacity,   | compilation for many    |
|           | as many rounds as the most loaded expert needs        | static shapes;          |
|           |                                                       | comparison              |
| `oracle`  | one-hot matrix products                               | tests                   |

Decoding replaces `grouped` by `few_tokens`, a loop over the experts that the few tokens of a step
have chosen. `register_dispatch` adds a dispatch.
"""

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.registry import DISPATCHES, Dispatch, get_dispatch, register_dispatch

__all__ = ["DISPATCHES", "Dispatch", "ExpertNetwork", "get_dispatch", "register_dispatch"]
