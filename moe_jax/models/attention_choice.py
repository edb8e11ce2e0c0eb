"""Which implementation of attention a model runs: in tiles on TPU, or by the compiler."""

import dataclasses

from moe_jax.models.config import ModelConfig
from moe_jax.models.position_embeddings import bucket_starts, distance_buckets

# From this distance on, the kernel takes the bias to be constant.
CONSTANT_FROM = 129
# Positions times head width of a row whose gradient stays on the chip, beside tiles; a head
# there is a multiple of 128 lanes wide. Twice as many do not fit on v4, which has 16 MiB.
_LARGEST_ROWS, _LANES = {"bfloat16": 2**20, "float32": 2**19}, 128


@dataclasses.dataclass(frozen=True)
class AttentionChoice:
    """The implementation that is used.

    Attributes:
        is_kernel: true for `moe_jax.models.flash_attention`; otherwise `softmax_attention`.
        interpret: interpret the kernel, as on CPU.
        reason: why, in a few words.
    """

    is_kernel: bool
    interpret: bool
    reason: str

    def __str__(self) -> str:
        return f"{'kernel' if self.is_kernel else 'plain'} ({self.reason})"


def choose_attention(config: ModelConfig, platform: str, length: int) -> AttentionChoice:
    """Returns the implementation for rows of a length on a platform, by `Model.attention`."""
    if config.attention == "plain":
        return AttentionChoice(False, False, "Model.attention")
    unfit = _unfit(config, length)
    if unfit:
        return AttentionChoice(False, False, unfit)
    if platform == "tpu":
        return AttentionChoice(True, False, "in tiles")
    if config.attention == "kernel":
        return AttentionChoice(True, True, "interpreted, which is slow")
    return AttentionChoice(False, False, "the kernel is for TPU")


def _unfit(config: ModelConfig, length: int) -> str:
    """Returns why the kernel cannot compute this attention, or nothing if it can."""
    if length * -(-config.head_dim // _LANES) * _LANES > _LARGEST_ROWS[config.compute_dtype]:
        return f"rows of {length} positions are too long for the kernel's backward pass"
    if config.position == "relative":
        buckets = distance_buckets(config.relative_buckets, config.relative_max_distance)
        if bucket_starts(buckets)[-1] > CONSTANT_FROM:
            return (
                f"Model.relative_max_distance = {config.relative_max_distance}: the kernel needs a "
                f"constant bias from the distance {CONSTANT_FROM} on"
            )
    return ""
