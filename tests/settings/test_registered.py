"""Every name that gin files can configure says what its values are, and checks them."""

import pytest
from gin import config as gin_config

import moe_jax.experiments  # noqa: F401
from moe_jax.errors import UserError
from moe_jax.gin_registry import configurable_names
from moe_jax.settings import (
    REGISTERED,
    check_annotation,
    mistakes,
    parameters,
    register,
)
from moe_jax.settings.values import matches

# Importing `experiment` registers all of the package's.
TARGETS = {
    name: target for name, target in REGISTERED.items() if target.__module__.startswith("moe_jax.")
}
PARAMETERS = [(name, p) for name, target in TARGETS.items() for p in parameters(target)]


class Nothing:
    """Fits no annotation of a setting."""


def test_all_that_gin_can_configure_is_registered_here():
    assert sorted(TARGETS) == [n for n in configurable_names() if n in TARGETS]
    assert len(PARAMETERS) > 100


@pytest.mark.parametrize(("name", "parameter"), PARAMETERS)
def test_a_parameter_has_an_annotation_that_is_checked(name, parameter):
    target = TARGETS[name]
    takes = parameters(target)[parameter]
    check_annotation(takes.hint)
    if takes.default is not None:
        assert matches(takes.hint, takes.default())
    (line,) = [
        m.text
        for m in mistakes(target, {parameter: Nothing()}, lambda name: " (here)")
        if m.kind == "value"
    ]
    assert line.startswith(f"{name}.{parameter} must be ")
    assert "(here)" in line
    # A value of that kind is refused by Python code, too.
    with pytest.raises(UserError, match=rf"{name}\.{parameter} must be"):
        target(**{parameter: Nothing(), **_needed(target, parameter)})


def _needed(target, parameter):
    """Returns values, of the wrong kind, for what has to be given besides."""
    return {
        other: None
        for other, takes in parameters(target).items()
        if takes.default is None and other != parameter
    }


def test_what_is_not_checked_cannot_be_registered():
    with pytest.raises(ValueError, match="must be `Settings` or `checked`"):
        register("Plain", Nothing)
    assert "moe_jax.Plain" not in dict(gin_config._REGISTRY.items())
