"""Sharding rules: from the logical axes of parameters to the axes of the mesh."""

from collections.abc import Mapping, Sequence

from moe_jax.errors import UserError, nearest

AXES = ("slice", "data", "fsdp", "expert", "tensor")
# Axes that the rows of a batch are sharded along.
BATCH_AXES = ("slice", "data", "fsdp", "expert")
# Pairs of a logical axis and the mesh axes that it is sharded along.
Rules = tuple[tuple[str, tuple[str, ...]], ...]
DEFAULT_RULES: dict[str, str | None] = {
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
    "experts": "expert",
    "expert_embed": "fsdp",
    "expert_mlp": "tensor",
    "router": None,
    "norm": None,
    "position": None,
    "layers": None,
}
# The settings that determine the size of a logical axis.
AXIS_SETTINGS = {
    "vocab": "Model.vocab_size",
    "embed": "Model.d_model",
    "heads": "Model.num_heads x Model.head_dim",
    "mlp": "Model.d_ff",
    "experts": "Model.num_experts",
    "expert_embed": "Model.d_model",
    "expert_mlp": "Model.d_ff",
    "layers": "Model.num_layers / Model.moe_every",
}


def resolve_rules(changes: Mapping[str, str | Sequence[str] | None]) -> Rules:
    """Applies changes to `DEFAULT_RULES`; returns the mesh axes of every logical axis.

    Raises:
        UserError: for a logical or a mesh axis that does not exist, or is named twice.
    """
    rules: dict[str, str | Sequence[str] | None] = {**DEFAULT_RULES, **changes}
    resolved = []
    for name, target in rules.items():
        if name not in DEFAULT_RULES:
            raise UserError(
                f"Mesh.rules: no parameter has an axis {name!r}; known: "
                f"{', '.join(DEFAULT_RULES)}." + nearest(name, DEFAULT_RULES)
            )
        axes = () if target is None else (target,) if isinstance(target, str) else tuple(target)
        for axis in axes:
            if axis not in AXES:
                raise UserError(
                    f"Mesh.rules: {name!r} -> {axis!r} is not a mesh axis; known: "
                    f"{', '.join(AXES)}." + nearest(axis, AXES)
                )
            if axes.count(axis) > 1:
                raise UserError(f"Mesh.rules: {name!r} is sharded along {axis!r} twice")
        if name == "experts" and "tensor" in axes:
            raise UserError(
                "Mesh.rules: 'experts' cannot be sharded along 'tensor', whose devices process "
                "the same tokens; use 'expert'"
            )
        resolved.append((name, axes))
    return tuple(resolved)
