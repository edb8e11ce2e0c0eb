"""The shape of a model: one frozen dataclass, checked when it is made."""

import dataclasses

from moe_jax.dispatch import get_dispatch
from moe_jax.errors import UserError, nearest

POSITIONS = ("relative", "rotary")
FEED_FORWARDS = ("gated_gelu", "gelu")
DTYPES = ("float32", "bfloat16")
# Activations that the remat policy `named` can keep.
ACTIVATIONS = (
    "qkv",
    "attention_context",
    "ffn_hidden",
    "moe_in",
    "moe_hidden",
    "moe_rows",
    "moe_out",
)
REMAT_POLICIES = ("none", "full", "dots", "dots_no_batch", "named")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A decoder-only mixture-of-experts transformer (Zhou et al. 2022, sections 3.4 and 4.1).

    Attributes:
        vocab_size: rows of the embedding, V.
        num_layers: L, attention plus feed-forward layers.
        d_model: D.
        num_heads: attention heads.
        head_dim: width of a head.
        d_ff: F, hidden width of dense feed-forward layers and of every expert.
        num_experts: E; 0 makes a dense model.
        num_shared_experts: experts that every token goes to beside the routed ones, with weight 1
            (DeepSeekMoE); computed as one feed-forward of so many times F.
        moe_every: one layer in so many is a mixture of experts, the first of each group
            (as in GLaM); 1 makes all of them.
        feed_forward: dense feed-forward: `gated_gelu` (the paper's) or `gelu` (two matrices,
            the same as an expert).
        position: `relative` (T5's buckets, a table per layer) or `rotary`.
        relative_buckets: buckets of the relative position bias.
        relative_max_distance: distance from which on all positions share the last bucket.
        bidirectional_prefix: the tokens before the targets (of a task with inputs, or of a
            prefix language model; a prompt, when text is generated) attend to each other in both
            directions (Raffel et al. 2020, section 3.2.1). Without it attention is causal.
        compute_dtype: precision of activations and matrix products; parameters, router,
            softmax and loss are float32 in any case.
        scan_layers: compile one group of layers and scan it (fast to compile) or unroll all.
            The parameters and the results are the same.
        remat: what the backward pass recomputes, by name; see `moe_jax.models.remat`.
        remat_names: the activations kept by the policy `named`, out of `ACTIVATIONS`.
        dispatch: how tokens reach their experts; see `moe_jax.dispatch`.
    """

    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    head_dim: int
    d_ff: int
    num_experts: int = 0
    num_shared_experts: int = 0
    moe_every: int = 2
    feed_forward: str = "gated_gelu"
    position: str = "relative"
    relative_buckets: int = 32
    relative_max_distance: int = 128
    bidirectional_prefix: bool = False
    compute_dtype: str = "float32"
    scan_layers: bool = True
    remat: str = "none"
    remat_names: tuple[str, ...] = ()
    dispatch: str = "grouped"

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "num_layers", "d_model", "num_heads", "head_dim", "d_ff")
        for name in (*sizes, "moe_every", "relative_buckets"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"Model.{name} must be a whole number above 0, not {value!r}")
        if self.num_experts < 0:
            raise UserError(f"Model.num_experts must be 0 (dense) or more, not {self.num_experts}")
        if self.num_shared_experts < 0 or (self.num_shared_experts and not self.num_experts):
            raise UserError(
                "Model.num_shared_experts must be 0 or more, and needs Model.num_experts: a dense "
                f"model has no experts to share (num_shared_experts = {self.num_shared_experts})"
            )
        if self.num_layers % self.period:
            raise UserError(
                f"Model.num_layers = {self.num_layers} is not a multiple of "
                f"Model.moe_every = {self.moe_every}"
            )
        if self.relative_max_distance <= self.relative_buckets // 2:
            raise UserError(
                "Model.relative_max_distance must be more than half of Model.relative_buckets"
            )
        if self.position == "rotary" and self.head_dim % 2:
            raise UserError(f"rotary positions need an even Model.head_dim, not {self.head_dim}")
        self._check_choice("feed_forward", FEED_FORWARDS)
        self._check_choice("position", POSITIONS)
        self._check_choice("compute_dtype", DTYPES)
        self._check_choice("remat", REMAT_POLICIES)
        for name in self.remat_names:
            if name not in ACTIVATIONS:
                raise UserError(
                    f"Model.remat_names: no activation is called {name!r}; "
                    f"known: {', '.join(ACTIVATIONS)}." + nearest(name, ACTIVATIONS)
                )
        get_dispatch(self.dispatch)

    def _check_choice(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise UserError(
                f"Model.{name} = {value!r} is unknown; known: {', '.join(known)}."
                + nearest(str(value), known)
            )

    def shared_expert(self) -> "ModelConfig":
        """Returns the shape with the shared experts as its dense feed-forward."""
        return dataclasses.replace(
            self, feed_forward="gelu", d_ff=self.d_ff * self.num_shared_experts
        )

    @property
    def period(self) -> int:
        """Layers in the group that repeats: one mixture-of-experts layer and the dense ones."""
        return self.moe_every if self.num_experts else 1

    @property
    def num_periods(self) -> int:
        """Number of groups; the leading axis of every stacked parameter."""
        return self.num_layers // self.period

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Numbers of the mixture-of-experts layers in the model, counted from 1."""
        return tuple(range(1, self.num_layers + 1, self.period)) if self.num_experts else ()

    @property
    def num_moe_layers(self) -> int:
        """Number of mixture-of-experts layers."""
        return self.num_periods if self.num_experts else 0
