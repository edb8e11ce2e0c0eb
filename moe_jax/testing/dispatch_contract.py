"""Conformance check of a dispatch: outputs and gradients must equal those of the one-hot oracle."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.dispatch import Dispatch, ExpertNetwork, get_dispatch
from moe_jax.routers import get_router
from moe_jax.routing.router import Router
from moe_jax.testing.routed_layer import Inputs, compiled, random_inputs, route

# One router for each form of assignment: slots, pairs, pairs with a capacity, K = E choices.
_ROUTERS = ("expert_choice", "adaptive", "switch", "expert_threshold")


class DispatchContractError(AssertionError):
    """Raised for a dispatch whose results differ from those of the oracle."""


def check_dispatch(dispatch: Dispatch | str) -> None:
    """Checks that a dispatch equals the oracle, forward and backward, for all forms of assignment.

    Args:
        dispatch: the function, or its registered name.

    Raises:
        DispatchContractError: if a result differs; names the router and the array.
    """
    name = dispatch if isinstance(dispatch, str) else getattr(dispatch, "__name__", str(dispatch))
    function = get_dispatch(dispatch) if isinstance(dispatch, str) else dispatch
    inputs = random_inputs(8, 16, 4, seed=3)
    for router in map(get_router, _ROUTERS):
        expected = _results(router, get_dispatch("oracle"), inputs)
        actual = _results(router, function, inputs)
        for array, value in expected.items():
            error = np.abs(actual[array] - value).max()
            if not error <= 1e-5 * max(np.abs(value).max(), 1e-3):
                raise DispatchContractError(
                    f"{name}: {array} differs from the oracle's by {error:.2g} for the assignment "
                    f"of {router.name}"
                )


def _results(router: Router, dispatch: Dispatch, inputs: Inputs) -> dict[str, np.ndarray]:
    """Computes the output and the gradients, by name."""

    def output(arrays: dict[str, jax.Array], inputs: Inputs) -> jax.Array:
        changed: Any = dataclasses.replace(inputs, **arrays)
        routed = route(router, changed, None, router.init_state(changed.kernel_DE.shape[1]))
        experts = ExpertNetwork(changed.wi_EDF, changed.wo_EDF, jnp.tanh)
        return dispatch(routed.assignment, router.pool.split(changed.x_BSD), experts)

    @functools.partial(compiled, static=())
    def run(arrays: dict[str, jax.Array], inputs: Inputs) -> tuple[jax.Array, Any]:
        y_PND, backward = jax.vjp(lambda arrays: output(arrays, inputs), arrays)
        cotangent = jnp.cos(jnp.arange(y_PND.size)).reshape(y_PND.shape)
        return y_PND, backward(cotangent)[0]

    arrays = {name: getattr(inputs, name) for name in ("x_BSD", "kernel_DE", "wi_EDF", "wo_EDF")}
    y_PND, gradients = jax.device_get(run(arrays, inputs))
    return {"the output": y_PND, **{f"the gradient of {n}": g for n, g in gradients.items()}}
