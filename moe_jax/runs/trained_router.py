"""Comparison of the configured router with the router that a run was trained with."""

import ast
import re

from moe_jax.runs.loading import Run
from moe_jax.sharding.processes import config_bindings
from moe_jax.training.run_directory import run_directory


def router_mismatch(run: Run) -> str | None:
    """Returns a message with both names if a run was trained with another router, else None."""
    trained_config = (run.directory / run_directory.CONFIG_FILE).read_text()
    trained, used = router_name(trained_config), router_name(run.config)
    if trained == used:
        return None
    return f"the run was trained with the router {trained}, and this configuration has {used}"


def router_name(configuration: str) -> str:
    """Returns the name of the router in an operative configuration."""
    bindings = config_bindings(configuration)
    reference = re.fullmatch(r"@(?:.*/)?(\w+)\(\)", bindings.get("Experiment.router", ""))
    if reference is None or bindings.get("Model.num_experts", "0") == "0":
        return "none (a dense model)"
    if (name := bindings.get(f"{reference[1]}.name")) is not None:
        return str(ast.literal_eval(name))
    return re.sub("(?<!^)(?=[A-Z])", "_", reference[1]).lower()
