"""Registry of the dispatches, by the name used in `Model.dispatch`."""

from collections.abc import Callable

from moe_jax.dispatch.gather import gather
from moe_jax.dispatch.grouped import grouped
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.oracle import oracle
from moe_jax.errors import UserError, nearest
from moe_jax.routing.assignment import Assignment
from moe_jax.types import ActivationsPND

Dispatch = Callable[[Assignment, ActivationsPND, ExpertNetwork], ActivationsPND]

DISPATCHES: dict[str, Dispatch] = {"grouped": grouped, "gather": gather, "oracle": oracle}


def register_dispatch(name: str) -> Callable[[Dispatch], Dispatch]:
    """Returns a decorator that registers a function under a name for `Model.dispatch`.

    `moe_jax.testing.check_dispatch` compares the function with the oracle. If the same module
    registers the name again, the function is replaced.

    Raises:
        ValueError: for a name that another module has registered.
    """

    def register(function: Dispatch) -> Dispatch:
        known = DISPATCHES.get(name)
        if known is not None and known.__module__ != function.__module__:
            raise ValueError(
                f"{function.__module__} registers the dispatch {name!r}, which "
                f"{known.__module__} has registered: give it another name"
            )
        DISPATCHES[name] = function
        return function

    return register


def get_dispatch(name: str) -> Dispatch:
    """Returns the dispatch of this name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in DISPATCHES:
        raise UserError(
            f"unknown dispatch {name!r}; known: {', '.join(sorted(DISPATCHES))}."
            + nearest(name, DISPATCHES)
        )
    return DISPATCHES[name]
