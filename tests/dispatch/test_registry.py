"""Dispatches are found by name."""

import pytest

from moe_jax.dispatch import DISPATCHES, get_dispatch
from moe_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "right"), [("gathr", "gather"), ("Oracle", "oracle"), ("orcale", "oracle")]
)
def test_unknown_name_names_the_nearest(name, right):
    with pytest.raises(UserError, match=f"unknown dispatch '{name}'.*Did you mean '{right}'"):
        get_dispatch(name)


def test_known_names():
    """The oracle that everything is compared with, the default of the models, and the other."""
    assert {"gather", "grouped", "oracle"} == set(DISPATCHES)
    assert all(get_dispatch(name) is DISPATCHES[name] for name in DISPATCHES)
