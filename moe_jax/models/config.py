"""The configuration of a model: a frozen dataclass that validates its settings."""

import dataclasses
from typing import Annotated, Literal, get_args

from moe_jax.dispatch import DISPATCHES
from moe_jax.errors import UserError, nearest
from moe_jax.registration import configurable
from moe_jax.settings import LARGEST_INT, Decay, Name, PositiveInt, Range, Settings, counted, rule

Position = Literal["relative", "rotary"]
FeedForward = Literal["gated_gelu", "gelu"]
AttentionKind = Literal["auto", "plain", "kernel"]
Dtype = Literal["float32", "bfloat16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
# Activations that the remat policy `named` can keep.
Activation = Literal[
    "qkv",
    "attention_context",
    "ffn_hidden",
    "moe_in",
    "moe_hidden",
    "moe_rows",
    "moe_out",
]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
RematPolicy = Literal["none", "full", "dots", "dots_no_batch", "named"]
REMAT_POLICIES: tuple[RematPolicy, ...] = get_args(RematPolicy)


@configurable
@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings, called="Model"):
    """A decoder-only mixture-of-experts transformer (Zhou et al. 2022, sections 3.4 and 4.1).

    Attributes:
        vocab_size: rows of the embedding, V.
        num_layers: L, attention plus feed-forward layers.
        d_model: D.
        num_heads: attention heads.
        head_dim: width of a head.
        d_ff: F, hidden width of dense feed-forward layers and of every expert.
        num_experts: number of experts, E; 0 for a dense model.
        num_shared_experts: number of experts that process every token beside the routed ones, with
            weight 1 (DeepSeekMoE); computed as one feed-forward of this many times F.
        moe_every: one of every `moe_every` layers is a mixture of experts, the first of each group
            (as in GLaM); with 1, all layers are.
        feed_forward: dense feed-forward: `gated_gelu` (as in the paper) or `gelu` (two matrices,
            as in an expert).
        position: `relative` (T5's buckets, a table per layer) or `rotary`.
        relative_buckets: number of buckets of the relative position bias.
        relative_max_distance: smallest distance of the last bucket, which has no upper limit.
        attention: how attention is computed: `kernel` in tiles (`moe_jax.models.flash_attention`;
            elsewhere than on TPU it is interpreted, which is slow), `plain` by the compiler, or
            `auto`: by the kernel on TPU. Where the kernel does not fit, attention is plain, as
            `moe-jax config show` says. Results differ by rounding only.
        bidirectional_prefix: the tokens before the targets (the inputs of a task, the prefix of a
            prefix language model, or the prompt in generation) attend to each other in both
            directions (Raffel et al. 2020, section 3.2.1). Otherwise attention is causal.
        dropout: share of units dropped in training steps: of the embedding, of the output of every
            attention and feed-forward layer, and of the hidden units of dense feed-forward layers
            and shared experts. A mask is shared by the positions of a row (T5). Papers: 0 in
            pre-training, 0.1 in fine-tuning. Attention weights are not dropped.
        expert_dropout: share of the hidden units of routed experts dropped in training steps; a
            mask is shared by the tokens of an expert. Switch Transformer: 0.4 in fine-tuning.
        compute_dtype: precision of activations and matrix products; parameters, router, softmax
            and loss are always float32.
        scan_layers: compile one group of layers and scan over the groups (fast to compile), or
            unroll all. Parameters and results are the same.
        remat: name of the rematerialization policy; see `moe_jax.models.remat`.
        remat_names: the activations kept by the policy `named`, out of `ACTIVATIONS`.
        dispatch: name of the dispatch of tokens to experts; see `moe_jax.dispatch`.
    """

    vocab_size: PositiveInt
    num_layers: PositiveInt
    d_model: PositiveInt
    num_heads: PositiveInt
    head_dim: PositiveInt
    d_ff: PositiveInt
    num_experts: Annotated[int, counted("dense")] = 0
    num_shared_experts: Annotated[int, counted("none")] = 0
    moe_every: PositiveInt = 2
    feed_forward: FeedForward = "gated_gelu"
    position: Position = "relative"
    # Half of the buckets are exact distances; there must be at least one.
    relative_buckets: Annotated[int, Range(least=2, most=LARGEST_INT)] = 32
    relative_max_distance: PositiveInt = 128
    attention: AttentionKind = "auto"
    bidirectional_prefix: bool = False
    dropout: Decay = 0.0
    expert_dropout: Decay = 0.0
    compute_dtype: Dtype = "float32"
    scan_layers: bool = True
    remat: RematPolicy = "none"
    remat_names: tuple[Activation, ...] = ()
    dispatch: Name = "grouped"

    @staticmethod
    @rule
    def _experts_to_share(num_shared_experts: int, num_experts: int) -> None:
        if num_shared_experts and not num_experts:
            raise UserError(
                f"Model.num_shared_experts = {num_shared_experts} needs Model.num_experts: a dense "
                "model has no experts to share"
            )

    @staticmethod
    @rule
    def _groups_are_whole(num_layers: int, moe_every: int, num_experts: int) -> None:
        if num_experts and num_layers % moe_every:
            raise UserError(
                f"Model.num_layers = {num_layers} is not a multiple of "
                f"Model.moe_every = {moe_every}"
            )

    @staticmethod
    @rule
    def _buckets_fit_the_distance(relative_buckets: int, relative_max_distance: int) -> None:
        if relative_max_distance <= relative_buckets // 2:
            raise UserError(
                f"Model.relative_max_distance = {relative_max_distance} must be more than half of "
                f"Model.relative_buckets = {relative_buckets}"
            )

    @staticmethod
    @rule
    def _heads_can_be_rotated(position: Position, head_dim: int) -> None:
        if position == "rotary" and head_dim % 2:
            raise UserError(
                f"Model.position = 'rotary' needs an even Model.head_dim, not {head_dim}"
            )

    @staticmethod
    @rule
    def _dispatch_is_registered(dispatch: str) -> None:
        if dispatch not in DISPATCHES:
            raise UserError(
                f"Model.dispatch = {dispatch!r} is unknown; known: {', '.join(DISPATCHES)}."
                + nearest(dispatch, DISPATCHES)
            )

    def shared_expert(self) -> "ModelConfig":
        """Returns a configuration whose dense feed-forward is the shared experts."""
        return dataclasses.replace(
            self, feed_forward="gelu", d_ff=self.d_ff * self.num_shared_experts
        )

    @property
    def period(self) -> int:
        """Number of layers in a group: one mixture-of-experts layer and the dense ones after it."""
        return self.moe_every if self.num_experts else 1

    @property
    def num_periods(self) -> int:
        """Number of groups; the size of the first axis of every stacked parameter."""
        return self.num_layers // self.period

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the mixture-of-experts layers in the model, counted from 1."""
        return tuple(range(1, self.num_layers + 1, self.period)) if self.num_experts else ()

    @property
    def num_moe_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return self.num_periods if self.num_experts else 0
