"""Compare two configurations, by whether the differing settings affect the trained model.

| settings                                                     | affect                     |
|--------------------------------------------------------------|----------------------------|
| `Checkpoints`, `Watchdog`, `Writers`, `Sampling`,            | saving, logging and        |
| `TaskScores`,                                                |                            |
| `Train.log_every`, `.eval_every`, `.profile_*`, `Data.eval_*`| evaluation                 |
| `Initial`                                                    | where training started     |
| `Mesh`, `Model.remat*`, `.scan_layers`, `.dispatch`,         | how and where the step is  |
| `.attention`, `Loss.chunk`, `Train.compiler_options`,        | computed                   |
| `Data.tfds_data_dir`, `.cache_dir`, `.rows_dir`              |                            |
| `Train.steps`, and settings equal to it in both;             | the length of training     |
| `Train.patience`                                             |                            |
| all others                                                   | the trained model          |
"""

import dataclasses
import re

from moe_jax.sharding.processes import config_bindings

_NOT_THE_MODEL = re.compile(
    r"(Checkpoints|Watchdog|Writers|Sampling|TaskScores|Mesh|Initial)\..*"
    r"|Experiment\.(checkpoints|watchdog|writers|sampling|task_scores|mesh|initial)"
    r"|Train\.(steps|patience|log_every|eval_every|profile_.*|compiler_options)"
    r"|Data\.(eval_.*|tfds_data_dir|cache_dir|rows_dir)"
    r"|Model\.(attention|remat|remat_names|scan_layers|dispatch)"
    r"|Loss\.chunk"
)
_STEPS = "Train.steps"


@dataclasses.dataclass(frozen=True)
class ConfigDifference:
    """Settings in which two configurations differ, as lines `NAME is VALUE, was VALUE`.

    Attributes:
        model: settings that affect the trained model.
        other: all other settings.
    """

    model: list[str]
    other: list[str]


def compare_configs(before: str, now: str) -> ConfigDifference:
    """Compares two operative configurations.

    A setting that only one of them has does not count as affecting the model: another version of
    the program may have added it, and another router or optimiser differs in its name, too.

    Args:
        before: operative gin text of the earlier configuration.
        now: operative gin text of the present configuration.
    """
    was, found = _values(before), _values(now)
    model: list[str] = []
    other: list[str] = []
    for name in sorted({*was, *found}):
        if was.get(name) == found.get(name):
            continue
        line = f"{name} is {found.get(name, 'not set')}, was {was.get(name, 'not set')}"
        both = name in was and name in found
        # For example a schedule that ends with the run.
        follows = both and all(values[name] == values.get(_STEPS, "") for values in (was, found))
        decides = both and not follows and not _NOT_THE_MODEL.fullmatch(name)
        (model if decides else other).append(line)
    return ConfigDifference(model, other)


def _values(config: str) -> dict[str, str]:
    """Returns the settings by name, with macros replaced by their values."""
    bindings = config_bindings(config)
    macros = {name: value for name, value in bindings.items() if "." not in name}

    def resolved(value: str) -> str:
        for _ in macros:
            name = value.removeprefix("%")
            if name == value or name not in macros:
                break
            value = macros[name]
        return value

    return {name: resolved(value) for name, value in bindings.items() if "." in name}
