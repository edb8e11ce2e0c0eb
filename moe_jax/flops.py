"""Count parameters and FLOPs.

A matrix product of [m, k] and [k, n] counts 2 m k n FLOPs. As usual, only matrix products count;
norms, softmax, gathers and the optimiser do not. A training step counts three forward
passes (one forward, two backward). Attention is counted over the whole square of positions, not
halved for causality, also where less of it is computed (`moe_jax.models.attention.block_length`).
Every utilisation printed by this project follows these rules.
"""

import dataclasses

from moe_jax.models.config import FeedForward, ModelConfig
from moe_jax.registration import configurable
from moe_jax.settings import NonNegative, PositiveInt


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


@configurable("EqualFlopsWidth")
def equal_flops_width(
    d_ff: PositiveInt,
    num_experts: PositiveInt,
    experts_per_token: NonNegative = 2.0,
    moe_every: PositiveInt = 2,
    feed_forward: FeedForward = "gated_gelu",
    multiple: PositiveInt = 1,
) -> int:
    """Returns the `Model.d_ff` of a dense model with the active FLOPs of a mixture of experts.

    The dense model has the same other settings. Of each group of `moe_every` layers, the mixture
    computes the router, c experts of two matrices, and `moe_every` - 1 dense feed-forwards; the
    dense model `moe_every` feed-forwards. With every second layer a mixture and gated feed-forwards
    of three matrices, that is a width of (2 c F + E + 3 F) / 6.

    Args:
        d_ff: F of the mixture.
        num_experts: E.
        experts_per_token: c, the expert slots computed per token.
        moe_every: one of every `moe_every` layers is a mixture.
        feed_forward: the dense feed-forward, of both models.
        multiple: round the width to a multiple of this number.
    """
    # The model's width and depth cancel.
    one = ModelConfig(1, moe_every, 1, 1, 2, 1, moe_every=moe_every, feed_forward=feed_forward)
    mixture = dataclasses.replace(one, d_ff=d_ff, num_experts=num_experts)
    parts = forward_flops_per_token(mixture, experts_per_token, 1)
    wanted = parts["feed_forward"] + parts["experts"] + parts["router"]
    width = wanted / forward_flops_per_token(one, 0.0, 1)["feed_forward"]
    return max(round(width / multiple), 1) * multiple
