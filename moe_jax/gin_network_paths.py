"""Network paths that the configuration of a run directory may name.

Evaluating somebody else's run must not read from their bucket: the request alone tells who reads.
So the user has to repeat network paths in the `config.gin` of a local run, unless the package's own
files name them.

`Initial.checkpoint` is read by training alone, when a run begins, and the configuration of a run
that begins is the user's own; evaluating, resuming or generating from a run that was fine-tuned
from a checkpoint on a network reads only the run. So it is permitted to name one.
"""

import shlex
from collections.abc import Iterable, Sequence

import gin
from gin.config_parser import BindingStatement

from moe_jax.errors import UserError
from moe_jax.gin_statements import NETWORK_PATH, Statement, leaves

# Read only for a configuration that the user gives.
_NOT_READ = {"Initial.checkpoint"}


def check(statements: Sequence[Statement], run: str, own_texts: Iterable[str]) -> None:
    """Refuses settings of a local run that name network paths.

    Settings that the user's files and bindings override are not checked. A run on a network may
    name other network paths, as reading it was a network request already.

    Args:
        statements: every statement of the configuration.
        run: the file of the run, one of the roots of the statements.
        own_texts: trusted gin files: the package's own.

    Raises:
        UserError: for a refused setting, with the flag that permits it.
    """
    if NETWORK_PATH.match(run):
        return
    trusted = {path for text in own_texts for path in NETWORK_PATH.findall(text)}
    in_effect = {}
    for statement in statements:
        if isinstance(statement.parsed, BindingStatement):
            in_effect[_key(statement.parsed)] = statement
    for name, statement in in_effect.items():
        value = statement.parsed.value
        texts = (leaf for leaf in leaves(value) if isinstance(leaf, str))
        paths = {path for text in texts for path in NETWORK_PATH.findall(text)}
        if statement.root == run and name not in _NOT_READ and not paths <= trusted:
            refused = ", ".join(sorted(paths - trusted))
            raise UserError(
                f"{name} = {value!r} was refused ({statement.location}): a run on this machine "
                f"does not decide that {refused} is read. If you mean it, add "
                f"{shlex.quote(f'--gin.{name}={value}')}"
            )


def _key(statement: BindingStatement) -> str:
    """Returns the canonical name of a setting."""
    if not statement.arg_name:
        return "/".join(filter(None, (statement.scope, statement.selector)))
    found = gin.config._REGISTRY.matching_selectors(statement.selector)
    selector = found[0].rpartition(".")[2] if len(found) == 1 else statement.selector
    return "/".join(filter(None, (statement.scope, f"{selector}.{statement.arg_name}")))
