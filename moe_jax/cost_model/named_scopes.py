"""Model components of operations, by JAX's named scopes."""

import re

# Inner scopes before outer ones.
_COMPONENTS = {
    "router": "router",
    "shared_experts": "experts",
    "experts": "experts",
    "dispatch": "dispatch",
    "moe": "mixture of experts",
    "attention": "attention",
    "feed_forward": "feed-forward",
    "vocabulary_loss": "vocabulary",
    "embed": "vocabulary",
    "final_norm": "norms",
    "optimizer": "optimiser",
}


def component_of(op_name: str) -> str:
    """Returns the model component of an operation by JAX's name of it, or an empty string."""
    scopes = set(re.split(r"[/()]", op_name))
    return next((component for scope, component in _COMPONENTS.items() if scope in scopes), "")
