"""Validate XLA options of a configuration: only options that affect the program are allowed.

Some options name files that the compiler writes, reads or even runs, which a gin file from
elsewhere must not control. They can be set with `XLA_FLAGS` and `LIBTPU_INIT_ARGS` in the
environment.
"""

import re
from collections.abc import Mapping

from moe_jax.errors import UserError

# Words in the names of options whose values are files, directories, programs or more options.
_EXTERNAL = re.compile(
    r"(^|_)(dump\w*|dir|directory|file|filename|path|url|log|logdir|plugin|library|extra|flags)(_|$)"
    r"|_(to|from)$"
)
# A number, True or False, or the name of a choice.
_VALUE = re.compile(r"[A-Za-z0-9_.,:+-]*")


def check(options: object) -> None:
    """Refuses options with effects outside of the compiled program.

    Args:
        options: values by name.

    Raises:
        UserError: naming the option.
    """
    if not isinstance(options, Mapping):
        raise UserError(
            f"Train.compiler_options must be options by name, {{'xla_...': ...}}, not {options!r}"
        )
    for name, value in options.items():
        if not isinstance(name, str) or not isinstance(value, bool | int | float | str):
            raise UserError(
                f"Train.compiler_options: {name!r}: {value!r} is no option with its value"
            )
        if _EXTERNAL.search(name) or not _VALUE.fullmatch(str(value)):
            raise UserError(
                f"Train.compiler_options: {name} = {value!r} was refused: it may name files or "
                "programs, which a configuration does not decide; set it with XLA_FLAGS or "
                "LIBTPU_INIT_ARGS"
            )
