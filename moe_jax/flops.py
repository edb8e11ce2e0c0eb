"""Count parameters and FLOPs.

A matrix product of [m, k] and [k, n] counts 2 m k n FLOPs. As usual, only matrix products count;
norms, softmax, gathers and the optimiser do not. A training step counts three forward
passes (one forward, two backward). Attention is counted over the whole square of positions, not
halved for causality, also where less of it is computed (`moe_jax.models.attention.block_length`).
Every utilisation printed by this project follows these rules.
"""

import dataclasses

from moe_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Numbers of parameters.

    Attributes:
        total: all parameters.
        active: parameters used for a token on average, with c of the E experts of each layer.
    """

    total: int
    active: int


def _layer_parameters(config: ModelConfig) -> tuple[int, int, int]:
    """Returns the parameters of attention with norms, a dense feed-forward, and one expert."""
    inner = config.num_heads * config.head_dim
    attention = 4 * config.d_model * inner + 2 * config.d_model
    if config.position == "relative":
        attention += config.relative_buckets * config.num_heads
    matrices = 3 if config.feed_forward == "gated_gelu" else 2
    return attention, matrices * config.d_model * config.d_ff, 2 * config.d_model * config.d_ff


def count_parameters(
    config: ModelConfig, experts_per_token: float, router_is_learned: bool = True
) -> ParameterCount:
    """Counts parameters.

    Args:
        config: settings of the model.
        experts_per_token: c of expert choice, k of token choice; without shared experts.
        router_is_learned: True if mixture-of-experts layers have a router matrix.
    """
    attention, dense, expert = _layer_parameters(config)
    common = config.num_layers * attention + config.vocab_size * config.d_model + config.d_model
    common += (config.num_layers - config.num_moe_layers) * dense
    common += config.num_moe_layers * expert * config.num_shared_experts
    if router_is_learned:
        common += config.num_moe_layers * config.d_model * config.num_experts
    per_expert = config.num_moe_layers * expert
    return ParameterCount(
        total=common + per_expert * config.num_experts,
        active=common + round(per_expert * experts_per_token),
    )


def forward_flops_per_token(
    config: ModelConfig, experts_per_token: float, length: int
) -> dict[str, float]:
    """Counts the FLOPs of a forward pass per token, by part of the model.

    Args:
        config: settings of the model.
        experts_per_token: expert slots computed per token.
        length: S, number of positions in attention.
    """
    inner = config.num_heads * config.head_dim
    _, dense, expert = _layer_parameters(config)
    layers, moe_layers = config.num_layers, config.num_moe_layers
    return {
        "attention": layers * (2.0 * 4 * config.d_model * inner + 2.0 * 2 * length * inner),
        "feed_forward": (layers - moe_layers) * 2.0 * dense,
        "experts": moe_layers * 2.0 * expert * (experts_per_token + config.num_shared_experts),
        "router": moe_layers * 2.0 * config.d_model * config.num_experts,
        "vocabulary": 2.0 * config.vocab_size * config.d_model,
    }


def train_flops_per_token(config: ModelConfig, experts_per_token: float, length: int) -> float:
    """Counts the FLOPs of a training step per token: three forward passes."""
    return 3.0 * sum(forward_flops_per_token(config, experts_per_token, length).values())
