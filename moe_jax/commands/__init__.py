"""The verbs of the command line, one module or package each: see `moe_jax.commands.verb`."""
