"""Whether the router is the one that a run was trained with."""

import ast
import re

from etils import epath

from moe_jax import config
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.run_directory import run_directory


def other_router(directory: epath.Path) -> str | None:
    """Returns a sentence if the router is not the one that a run was trained with."""
    own = directory / run_directory.CONFIG_FILE
    trained, used = router_name(own.read_text()), router_name(config.operative())
    if trained == used:
        return None
    return f"the run was trained with the router {trained}, and this configuration has {used}"


def router_name(configuration: str) -> str:
    """Returns the name of the router in an operative configuration."""
    facts = config_bindings(configuration)
    made = re.fullmatch(r"@(?:.*/)?(\w+)\(\)", facts.get("Experiment.router", ""))
    if made is None or facts.get("Model.num_experts", "0") == "0":
        return "none (a dense model)"
    if (name := facts.get(f"{made[1]}.name")) is not None:
        return str(ast.literal_eval(name))
    return re.sub("(?<!^)(?=[A-Z])", "_", made[1]).lower()
