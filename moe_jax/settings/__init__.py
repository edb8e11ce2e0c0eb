"""Settings whose values are checked against their annotations.

A dataclass derived from `Settings`, or a function decorated with `checked`, accepts a value only
if it fits the annotation of its field or parameter:

| annotation                                 | a value that fits                               |
|--------------------------------------------|-------------------------------------------------|
| `bool`, `int`, `float`, `str`              | of that type: True is no number, 2 is a `float`, |
|                                            | 2.0 no `int`, and numbers are finite            |
| `Annotated[int, Range(...)]`, `PositiveInt`| in the range                                    |
| `Literal["a", "b"]`                        | one of the choices                              |
| `tuple`, `Sequence`, `Mapping`, a union    | each item, one alternative; a list for a tuple  |
| a class, `Callable`                        | an instance, something to call                  |
| `Annotated[X, "to do this"]`               | X; the text follows what a message says is right |

Conditions on several values are functions decorated with `rule`. All mistakes are reported
together, one line each, under the names that gin files use.
"""

from moe_jax.settings.checked import (
    Mistake,
    Settings,
    Undefined,
    Unusable,
    any_unusable,
    checked,
    mistakes,
    parameters,
    register,
    rule,
)
from moe_jax.settings.ranges import (
    LARGEST_INT,
    Count,
    Decay,
    Name,
    NonNegative,
    Path,
    Positive,
    PositiveInt,
    Range,
    Seed,
    Share,
    counted,
)
from moe_jax.settings.values import REGISTERED, check_annotation

__all__ = [
    "LARGEST_INT",
    "REGISTERED",
    "Count",
    "Decay",
    "Mistake",
    "Name",
    "NonNegative",
    "Path",
    "Positive",
    "PositiveInt",
    "Range",
    "Seed",
    "Settings",
    "Share",
    "Undefined",
    "Unusable",
    "any_unusable",
    "check_annotation",
    "checked",
    "counted",
    "mistakes",
    "parameters",
    "register",
    "rule",
]
