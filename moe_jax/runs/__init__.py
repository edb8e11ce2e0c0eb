"""Runs: training in a run directory, loading, evaluation and text generation.

Nothing here prints or parses arguments: `moe_jax.commands` does.
"""
