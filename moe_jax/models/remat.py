"""Rematerialization policies by name.

| name           | activations saved for the backward pass                                 |
|----------------|-------------------------------------------------------------------------|
| `none`         | all (no rematerialization)                                              |
| `full`         | only the input of each group of layers                                  |
| `dots`         | results of all matrix products                                          |
| `dots_no_batch`| results of matrix products without batch dimensions (not of attention)  |
| `named`        | `Model.remat_names`, out of `ACTIVATIONS`                               |
"""

from collections.abc import Callable
from typing import Any

import jax

from moe_jax.models.config import ModelConfig


def rematerialise(function: Callable[..., Any], config: ModelConfig) -> Callable[..., Any]:
    """Applies the rematerialization policy `config.remat` to a function."""
    if config.remat == "none":
        return function
    policies = jax.checkpoint_policies
    if config.remat == "named":
        policy = policies.save_only_these_names(*config.remat_names)
    else:
        policy = {
            "full": policies.nothing_saveable,
            "dots": policies.checkpoint_dots,
            "dots_no_batch": policies.checkpoint_dots_with_no_batch_dims,
        }[config.remat]
    return jax.checkpoint(function, policy=policy, prevent_cse=not config.scan_layers)
