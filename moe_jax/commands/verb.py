"""The interface of a verb of the command line."""

import argparse
from typing import Any, Protocol


class Verb(Protocol):
    """A verb: a module, or a package, of `moe_jax.commands` with these names.

    Importing it must not import JAX or TensorFlow, so that `--help` and mistakes on the command
    line are answered at once: `run` imports what it needs. To add a verb, write its module and
    name it in `moe_jax.cli.VERBS`.

    Attributes:
        NAME: the verb as it is typed.
        HELP: its line in `moe-jax --help`.
    """

    @property
    def NAME(self) -> str:  # noqa: D102
        ...

    @property
    def HELP(self) -> str:  # noqa: D102
        ...

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the verb's flags; those that several verbs share are in `arguments`."""

    def run(self, args: argparse.Namespace) -> dict[str, Any]:
        """Runs the verb, prints its results, and returns them for `--json`.

        Raises:
            UserError: for everything that the user can correct.
        """
