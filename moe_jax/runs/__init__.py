"""Runs: train an experiment in a directory, read it back, evaluate it and generate with it.

Nothing here prints or parses arguments: `moe_jax.commands` does.
"""
