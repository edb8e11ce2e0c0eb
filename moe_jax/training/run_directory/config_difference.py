"""What of a configuration decides what a run trains, and in what two configurations differ.

| settings                                                     | what they decide           |
|--------------------------------------------------------------|----------------------------|
| `Checkpoints`, `Watchdog`, `Writers`, `Sampling`,            | what is kept, written and  |
| `Train.log_every`, `.eval_every`, `.profile_*`, `Data.eval_*`| measured                   |
| `Mesh`, `Model.remat*`, `.scan_layers`, `.dispatch`,         | how and where it is        |
| `Loss.chunk`, `Train.compiler_options`,                      | computed                   |
| `Data.tfds_data_dir`, `.cache_dir`                           |                            |
| `Train.steps`, and what equals it in both                    | how long it goes on        |
| all others                                                   | the model that comes out   |
"""

import dataclasses
import re

from moe_jax.sharding.processes import config_bindings

_NOT_THE_MODEL = re.compile(
    r"(Checkpoints|Watchdog|Writers|Sampling|Mesh)\..*"
    r"|Experiment\.(checkpoints|watchdog|writers|sampling|mesh)"
    r"|Train\.(steps|log_every|eval_every|profile_.*|compiler_options)"
    r"|Data\.(eval_.*|tfds_data_dir|cache_dir)"
    r"|Model\.(remat|remat_names|scan_layers|dispatch)"
    r"|Loss\.chunk"
)
_STEPS = "Train.steps"


@dataclasses.dataclass(frozen=True)
class ConfigDifference:
    """In what a configuration differs from the one before.

    Attributes:
        model: settings that decide what is trained, `NAME is VALUE, was VALUE`.
        other: all others.
    """

    model: list[str]
    other: list[str]


def compare_configs(before: str, now: str) -> ConfigDifference:
    """Compares two operative configurations.

    A setting that only one of them has does not count as the model's: another version of the
    program may have it, and another router or optimiser differs in its name, too.

    Args:
        before: gin's text of the first.
        now: of the second.
    """
    was, found = _values(before), _values(now)
    model: list[str] = []
    other: list[str] = []
    for name in sorted({*was, *found}):
        if was.get(name) == found.get(name):
            continue
        line = f"{name} is {found.get(name, 'not set')}, was {was.get(name, 'not set')}"
        both = name in was and name in found
        # A schedule that ends with the run.
        follows = both and all(values[name] == values.get(_STEPS, "") for values in (was, found))
        decides = both and not follows and not _NOT_THE_MODEL.fullmatch(name)
        (model if decides else other).append(line)
    return ConfigDifference(model, other)


def _values(config: str) -> dict[str, str]:
    """Returns the settings with the values of macros in their places."""
    facts = config_bindings(config)
    macros = {name: value for name, value in facts.items() if "." not in name}

    def resolved(value: str) -> str:
        for _ in macros:
            name = value.removeprefix("%")
            if name == value or name not in macros:
                break
            value = macros[name]
        return value

    return {name: resolved(value) for name, value in facts.items() if "." in name}
