"""Compatibility with the setting names of earlier versions, in gin files and saved configurations.

| earlier                                            | current                                    |
|----------------------------------------------------|--------------------------------------------|
| `Loss.balance_loss = W`, `.router_z_loss`,         | `Loss.weights = {'balance': W}`,           |
| `.importance_loss`, `.load_loss`, `.consistency`   | `'router_z'`, `'importance'`, ...          |
| `Experiment.router = @TokenChoice()` with          | `@Switch()`, `@GShardTop2()`, `@GLaMTop2()`|
| `TokenChoice.name = 'switch'`, ...                 |                                            |

Bindings with earlier names are converted. Both forms of a router work, and are equal in comparisons
of configurations. So are a configuration without a setting that did not exist yet, and one in which
it has the value that leaves everything as it was.
"""

import ast
import re
from collections.abc import Mapping

_WEIGHTS = "Loss.weights"
# For each former parameter of `Loss`, the item of `Loss.weights` that replaces it and its default.
_LOSSES = {
    "balance_loss": ("balance", 0.01),
    "router_z_loss": ("router_z", 0.0),
    "importance_loss": ("importance", 0.005),
    "load_loss": ("load", 0.005),
    "consistency": ("consistency", 1.0),
}
_DEFAULT_WEIGHTS = dict(_LOSSES.values())
# Settings that were added later, with the value that a configuration without them had in effect.
_ADDED = {
    "Checkpoints.best_is": "''",
    "Data.rows_dir": "None",
    "Experiment.initial": "@Initial()",
    "Experiment.task_scores": "@TaskScores()",
    "Initial.checkpoint": "None",
    "Initial.optimizer": "'fresh'",
    "Initial.step": "'latest'",
    "Model.attention": "'auto'",
    "Model.dropout": "0.0",
    "Model.expert_dropout": "0.0",
    "Sampling.beams": "1",
    "Sampling.length_penalty": "0.6",
    "TaskScores.classes": "()",
    "TaskScores.examples": "0",
    "TaskScores.in_training": "False",
    "TaskScores.max_new_tokens": "0",
    "TaskScores.normalize_by_length": "False",
    "TaskScores.predicted_splits": "()",
    "TaskScores.split": "''",
    "Train.frozen": "()",
    "Train.patience": "0",
}
_ROUTERS = {"'switch'": "Switch", "'gshard_top2'": "GShardTop2", "'glam_top2'": "GLaMTop2"}


def current_binding(selector: str, parameter: str, value: object) -> tuple[str, object]:
    """Converts a binding to the current parameter and value, for the same selector."""
    if selector.rpartition(".")[2] == "Loss" and parameter in _LOSSES:
        return "weights", {_LOSSES[parameter][0]: value}
    return parameter, value


def current_bindings(facts: Mapping[str, str]) -> dict[str, str]:
    """Converts the settings of a configuration to current names, for comparisons.

    Each item of `Loss.weights` becomes a separate setting, unless it has the default value.
    Settings that were added later are left out where they change nothing.

    Args:
        facts: values by name, as gin writes them.
    """
    preset = _ROUTERS.get(facts.get("TokenChoice.name", ""))
    is_preset = preset is not None and facts.get("Experiment.router") == "@TokenChoice()"
    found: dict[str, str] = {}
    for name, value in facts.items():
        owner, _, parameter = name.partition(".")
        if is_preset and owner == "TokenChoice":
            found[f"{preset}.{parameter}"] = value
        elif is_preset and name == "Experiment.router":
            found[name] = f"@{preset}()"
        elif owner == "Loss" and parameter in _LOSSES:
            found |= _weights({_LOSSES[parameter][0]: value})
        elif name == _WEIGHTS:
            found |= _weights(_items(value))
        elif _ADDED.get(name) != value:
            found[name] = value
    return found


def _items(value: str) -> dict[str, str]:
    try:
        return {str(name): repr(weight) for name, weight in ast.literal_eval(value).items()}
    except (ValueError, SyntaxError, AttributeError):
        # The values contain macros.
        return dict(re.findall(r"'(\w+)': ([^,}]+)", value))


def _weights(weights: Mapping[str, str]) -> dict[str, str]:
    defaults = {name: repr(weight) for name, weight in _DEFAULT_WEIGHTS.items()}
    return {
        f"{_WEIGHTS}[{name!r}]": value
        for name, value in weights.items()
        if value != defaults.get(name)
    }
