"""Which part of the step an operation belongs to, by the names that the model gives its parts."""

import re

# The inner before the outer.
_PARTS = {
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


def scope_of(op_name: str) -> str:
    """Returns the part that JAX's name of an operation is in, or an empty string."""
    words = set(re.split(r"[/()]", op_name))
    return next((part for scope, part in _PARTS.items() if scope in words), "")


def phase_of(op_name: str) -> str:
    """Returns `forward`, `backward` or `recomputed`."""
    if "rematted_computation" in op_name:
        return "recomputed"
    return "backward" if "transpose(" in op_name else "forward"
