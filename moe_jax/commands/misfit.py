"""What differs between a run and a configuration that does not fit it, in settings."""

import ast
import contextlib
import re
from collections.abc import Iterator

from etils import epath

from moe_jax import config
from moe_jax.errors import UserError
from moe_jax.sharding.processes import config_facts
from moe_jax.training import run_directory
from moe_jax.training.checkpoints import Misfit


def other_router(directory: epath.Path) -> str | None:
    """Returns a sentence if the router is not the one that a run was trained with."""
    own = directory / run_directory.CONFIG_FILE
    trained, used = router_name(own.read_text()), router_name(config.operative())
    if trained == used:
        return None
    return f"the run was trained with the router {trained}, and this configuration has {used}"


def router_name(configuration: str) -> str:
    """Returns the name of the router in an operative configuration."""
    facts = config_facts(configuration)
    made = re.fullmatch(r"@(?:.*/)?(\w+)\(\)", facts.get("Experiment.router", ""))
    if made is None or facts.get("Model.num_experts", "0") == "0":
        return "none (a dense model)"
    if (name := facts.get(f"{made[1]}.name")) is not None:
        return str(ast.literal_eval(name))
    return re.sub("(?<!^)(?=[A-Z])", "_", made[1]).lower()


@contextlib.contextmanager
def naming_settings(directory: epath.Path) -> Iterator[None]:
    """Adds the settings that differ from the run's to the error of a checkpoint that misfits.

    Raises:
        UserError: with the arrays that misfit, and these settings.
    """
    try:
        yield
    except Misfit as error:
        own = config_facts((directory / run_directory.CONFIG_FILE).read_text())
        now = config_facts(config.operative())
        found = [other_router(directory)]
        found += [
            f"{name} is {value} in the run and {now[name]} here"
            for name, value in own.items()
            if name.startswith("Model.") and now.get(name, value) != value
        ]
        said = "; ".join(sentence for sentence in found if sentence)
        raise UserError(f"{error}. What differs: {said}" if said else str(error)) from error
