"""Which places on a network the configuration of a run directory may name.

Who evaluates a run that somebody else has made has not asked for data from a bucket of theirs: the
request alone says who reads it. So what a local run's `config.gin` names must be given again by the
user, unless the package's own files name it.
"""

import shlex
from collections.abc import Iterable, Sequence

import gin
from gin.config_parser import BindingStatement

from moe_jax.errors import UserError
from moe_jax.gin_sources import NETWORK_PLACE, Line, leaves


def check(lines: Sequence[Line], run: str, own_texts: Iterable[str]) -> None:
    """Refuses a local run's settings that name a place on the network.

    Settings that the user's files and bindings set over the run's are theirs. A run that lies on a
    network may name others: reading it was a request to a network already.

    Args:
        lines: every statement of the configuration.
        run: the run's file, one of the roots of the lines.
        own_texts: gin files that may be trusted: the package's.

    Raises:
        UserError: with the setting that the user can give.
    """
    if NETWORK_PLACE.match(run):
        return
    trusted = {place for text in own_texts for place in NETWORK_PLACE.findall(text)}
    in_effect = {}
    for line in lines:
        if isinstance(line.statement, BindingStatement):
            in_effect[_key(line.statement)] = line
    for name, line in in_effect.items():
        value = line.statement.value
        texts = (leaf for leaf in leaves(value) if isinstance(leaf, str))
        places = {place for text in texts for place in NETWORK_PLACE.findall(text)}
        if line.root == run and not places <= trusted:
            raise UserError(
                f"{name} = {value!r} was refused ({line.where}): a run on this machine does not "
                f"decide that {', '.join(sorted(places - trusted))} is read. If you mean it, add "
                f"{shlex.quote(f'--gin.{name}={value}')}"
            )


def _key(statement: BindingStatement) -> str:
    """Returns the name of a setting, the same for every way to write it."""
    if not statement.arg_name:
        return "/".join(filter(None, (statement.scope, statement.selector)))
    found = gin.config._REGISTRY.matching_selectors(statement.selector)
    selector = found[0].rpartition(".")[2] if len(found) == 1 else statement.selector
    return "/".join(filter(None, (statement.scope, f"{selector}.{statement.arg_name}")))
