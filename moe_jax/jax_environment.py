"""JAX's environment variables: which of them are followed, with a line about each.

| variable                                           | here                                  |
|----------------------------------------------------|---------------------------------------|
| `JAX_ENABLE_X64`, `JAX_DEFAULT_PRNG_IMPL` and      | not followed, with a line: a run is a |
| others that change numbers without a word          | function of its configuration         |
| `JAX_NUMPY_RANK_PROMOTION=raise` and others that   | not followed, with a line             |
| make JAX refuse what the program does              |                                       |
| `JAX_DEBUG_NANS`, `_DEBUG_INFS`, `_DISABLE_JIT`    | followed with `--debug` only          |
| `JAX_DEFAULT_MATMUL_PRECISION`                     | followed, with a line; in `run.json`  |

All others are JAX's own business.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from moe_jax.errors import UserError

_NUMBERS = "it would change the numbers of a run without a word in its configuration"
_REFUSES = "JAX would refuse what this program does"
_DEBUG = "only with --debug: the program deals with values that are not finite itself"
# Variables that are not followed: JAX's default value, and the reason.
_NOT_FOLLOWED: dict[str, tuple[Any, str]] = {
    "JAX_ENABLE_X64": (False, _NUMBERS),
    "JAX_DEFAULT_PRNG_IMPL": ("threefry2x32", _NUMBERS),
    "JAX_THREEFRY_PARTITIONABLE": (True, _NUMBERS),
    "JAX_RANDOM_SEED_OFFSET": (0, _NUMBERS),
    "JAX_HIGH_DYNAMIC_RANGE_GUMBEL": (False, _NUMBERS),
    "JAX_SOFTMAX_CUSTOM_JVP": (False, _NUMBERS),
    "JAX_NUMPY_RANK_PROMOTION": ("allow", _REFUSES),
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard", _REFUSES),
    "JAX_TRANSFER_GUARD": (None, _REFUSES),
    "JAX_TRANSFER_GUARD_HOST_TO_DEVICE": (None, _REFUSES),
    "JAX_TRANSFER_GUARD_DEVICE_TO_DEVICE": (None, _REFUSES),
    "JAX_TRANSFER_GUARD_DEVICE_TO_HOST": (None, _REFUSES),
    "JAX_NO_EXECUTION": (False, _REFUSES),
    "JAX_NO_TRACING": (False, _REFUSES),
    "JAX_DEBUG_NANS": (False, _DEBUG),
    "JAX_DEBUG_INFS": (False, _DEBUG),
    "JAX_DISABLE_JIT": (False, "only with --debug: each operation would run on its own"),
}
_WITH_DEBUG = ("JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_DISABLE_JIT")
# Followed, though it changes numbers: reported, and recorded with the run.
PRECISION = "JAX_DEFAULT_MATMUL_PRECISION"
_OFF = ("", "0", "false", "n", "no", "off")
# JAX's error, at its import, for a variable that it cannot parse.
_UNREADABLE = re.compile(r"for environment '?(JAX_\w+)|for JAX flag (jax_\w+)|'(JAX_\w+)'")


def prepare(debug: bool, say: Callable[[str], None] | None = None) -> None:
    """Removes the variables that are not followed from the environment, before JAX starts.

    Args:
        debug: follow the variables that help to debug the program.
        say: prints a line about each variable; by default to standard error.

    Raises:
        UserError: if there is no working directory.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError(
            "the working directory does not exist any more: change to another"
        ) from None
    say = say or (lambda line: print(f"moe-jax: {line}", file=sys.stderr))
    for variable, (default, reason) in _NOT_FOLLOWED.items():
        if variable not in os.environ or (debug and variable in _WITH_DEBUG):
            continue
        value = os.environ.pop(variable)
        # JAX has read the environment already if it is imported.
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(variable.lower(), default)
        if not _is_default(value, default):
            say(f"{variable}={value} in the environment is not followed: {reason}")
    if precision := os.environ.get(PRECISION):
        say(f"{PRECISION}={precision} in the environment is followed: matrix products differ")


def followed() -> Mapping[str, str]:
    """Returns the followed variables that change numbers, for the record of a run."""
    return {PRECISION: os.environ[PRECISION]} if os.environ.get(PRECISION) else {}


def mistake(error: Exception) -> str | None:
    """Explains an error of JAX about an environment variable; None for other errors."""
    text = " ".join(str(error).split())
    platforms = os.environ.get("JAX_PLATFORMS")
    if isinstance(error, RuntimeError) and "backend" in text and platforms:
        return f"JAX_PLATFORMS={platforms} in the environment cannot be used here: {text[:300]}"
    match = _UNREADABLE.search(text) if isinstance(error, ValueError) else None
    if match is None:
        return None
    variable = next(group for group in match.groups() if group).upper()
    value = os.environ.get(variable)
    if value is None:
        return None
    return f"{variable}={value} in the environment is not a value that JAX knows; unset it ({text})"


def _is_default(value: str, default: Any) -> bool:
    if default is False:
        return value.lower() in _OFF
    if default is True:
        return value.lower() not in _OFF
    return value == str(default) or (default is None and value in ("", "allow"))
