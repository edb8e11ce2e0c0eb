"""The transports of the package equal the oracle; a wrong one is told where it differs."""

import jax.numpy as jnp
import pytest

from moe_jax.dispatch import DISPATCHES, get_dispatch, register_dispatch
from moe_jax.dispatch.oracle import oracle
from moe_jax.errors import UserError
from moe_jax.models.config import ModelConfig
from moe_jax.testing import DispatchContractError, check_dispatch

SHAPE = {"vocab_size": 8, "num_layers": 2, "d_model": 8, "num_heads": 1, "head_dim": 8, "d_ff": 8}


@pytest.mark.parametrize("name", ["gather", "grouped"])
def test_the_packages_own_equal_the_oracle(name):
    check_dispatch(name)


def without_weights(assignment, x_PND, experts):
    return oracle(assignment, x_PND, experts) * 1.01


def without_gradient(assignment, x_PND, experts):
    import jax

    return oracle(assignment, jax.lax.stop_gradient(x_PND), experts)


@pytest.mark.parametrize(
    ("dispatch", "reason"),
    [
        (without_weights, "without_weights: the output differs .* of expert_choice"),
        (without_gradient, "without_gradient: the gradient of x_BSD differs"),
    ],
)
def test_a_wrong_one_is_told_where(dispatch, reason):
    with pytest.raises(DispatchContractError, match=reason):
        check_dispatch(dispatch)


def test_a_registered_one_can_be_named_and_is_in_the_messages():
    @register_dispatch("my_transport")
    def my_transport(assignment, x_PND, experts):
        return jnp.asarray(oracle(assignment, x_PND, experts))

    try:
        assert get_dispatch("my_transport") is my_transport
        assert ModelConfig(**SHAPE, dispatch="my_transport").dispatch == "my_transport"
        check_dispatch("my_transport")
        with pytest.raises(UserError, match=r"Model.dispatch = .*Did you mean 'my_transport'\?"):
            ModelConfig(**SHAPE, dispatch="my_trnsport")
    finally:
        del DISPATCHES["my_transport"]


def test_a_name_of_another_module_is_refused():
    with pytest.raises(ValueError, match=r"registers the dispatch 'grouped', which moe_jax\."):
        register_dispatch("grouped")(without_weights)
    assert get_dispatch("grouped").__module__ == "moe_jax.dispatch.grouped"
