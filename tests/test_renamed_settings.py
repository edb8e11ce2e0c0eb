"""Configurations of earlier versions compare equal to those of today that mean the same."""

import pytest

from moe_jax.renamed_settings import current_binding, current_bindings

OLD = {
    "Experiment.router": "@TokenChoice()",
    "TokenChoice.name": "'switch'",
    "TokenChoice.k": "1",
    "Loss.balance_loss": "0.01",
    "Loss.router_z_loss": "0.001",
    "Loss.importance_loss": "0.005",
    "Loss.z_loss": "0.0001",
}
NEW = {
    "Experiment.router": "@Switch()",
    "Switch.name": "'switch'",
    "Switch.k": "1",
    "Loss.weights": "{'balance': 0.01, 'router_z': 0.001}",
    "Loss.z_loss": "0.0001",
}


def test_old_and_new_names_are_the_same():
    assert current_bindings(OLD) == current_bindings(NEW)
    assert current_bindings(OLD)["Loss.weights['router_z']"] == "0.001"


@pytest.mark.parametrize(
    "change",
    [
        {"Loss.balance_loss": "0.02"},
        {"TokenChoice.k": "2"},
        {"TokenChoice.name": "'topk'"},
        {"Loss.z_loss": "0.0"},
    ],
)
def test_what_differs_still_differs(change):
    assert current_bindings(OLD | change) != current_bindings(NEW)


def test_macros_in_weights_are_compared_as_they_are_written():
    new = {"Loss.weights": "{'balance': %BALANCE, 'load': 0.005}"}
    assert current_bindings(new) == {"Loss.weights['balance']": "%BALANCE"}


def test_a_preset_by_another_name_stays_token_choice():
    facts = {"Experiment.router": "@TokenChoice()", "TokenChoice.name": "'mine'"}
    assert current_bindings(facts) == facts


def test_bindings():
    assert current_binding("Loss", "balance_loss", 0.5) == ("weights", {"balance": 0.5})
    assert current_binding("moe_jax.Loss", "load_loss", 0.5) == ("weights", {"load": 0.5})
    assert current_binding("Loss", "z_loss", 0.5) == ("z_loss", 0.5)
    assert current_binding("Other", "balance_loss", 0.5) == ("balance_loss", 0.5)


def test_a_setting_that_was_added_later_counts_only_where_it_changes_something():
    assert current_bindings(OLD | {"Train.frozen": "()"}) == current_bindings(OLD)
    assert current_bindings({"Train.frozen": "('experts',)"}) == {"Train.frozen": "('experts',)"}
