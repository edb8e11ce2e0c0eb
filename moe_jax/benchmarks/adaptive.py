"""Layer time of adaptive gating by share of one-expert tokens.

The threshold is a quantile of the gaps on the inputs that are timed, so that the share is exact.
For comparison, the figures of the paper: MoE layer time and computation relative to top-2 on A100
GPUs (Li et al. 2023, table 1).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from moe_jax.benchmarks import interleaved, layer
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routing.scores import router_logits

# Share of one-expert tokens -> the paper's (time, computation) relative to top-2.
PAPER = {
    1.0: (0.67, 0.5),
    0.8: (0.76, 0.6),
    0.5: (0.92, 0.75),
    0.2: (0.97, 0.9),
    0.0: (1.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class AdaptiveGatingTime:
    """The time of a layer relative to two experts for all tokens, which runs right before.

    Attributes:
        top1_share: measured share of one-expert tokens.
        relative_time: median of the relative times.
        relative_flops: relative FLOPs of the experts.
        paper_time: relative time in the paper.
        paper_flops: relative computation in the paper.
    """

    top1_share: float
    relative_time: float
    relative_flops: float
    paper_time: float
    paper_flops: float


def measure(size: layer.Size, dispatch: str, dtype: str, rounds: int) -> list[AdaptiveGatingTime]:
    """Measures all shares in one interleaved run, forward and backward, router included."""
    x, dy, tokens = layer.random_inputs(size, dtype)
    params = layer.expert_parameters(size, dtype)
    gaps = jnp.sort(_gaps(params["router"], x))
    cases, shares = {}, {}
    for share in PAPER:
        threshold = _threshold(gaps, share)
        router = Adaptive(threshold=threshold)
        cases[f"{share}"] = interleaved.compile_case(
            layer.step_of(functools.partial(layer.routed, router, dispatch, tokens)), params, x, dy
        )
        shares[share] = float(jnp.mean(gaps > threshold))
    full = dict.fromkeys(cases, cases["0.0"])
    times = interleaved.measure(cases, full, rounds)
    return [
        AdaptiveGatingTime(
            top1_share=shares[share],
            relative_time=times[f"{share}"].ratio,
            relative_flops=1.0 - 0.5 * shares[share],
            paper_time=paper_time,
            paper_flops=paper_flops,
        )
        for share, (paper_time, paper_flops) in PAPER.items()
    ]


def _gaps(router_kernel: jax.Array, x_BSD: jax.Array) -> jax.Array:
    """Returns the difference of the two largest probabilities of each token, [T]."""
    p_BSE = jax.nn.softmax(router_logits(x_BSD, router_kernel), axis=-1)
    best_BS2 = jax.lax.top_k(p_BSE, 2)[0]
    return (best_BS2[..., 0] - best_BS2[..., 1]).reshape(-1)


def _threshold(sorted_gaps: jax.Array, share: float) -> float:
    """Returns the threshold that a share of the gaps exceeds, half-way between two gaps."""
    if share == 0.0:
        return 1.0
    if share == 1.0:
        return 0.0
    place = round((1.0 - share) * sorted_gaps.size)
    return float((sorted_gaps[place - 1] + sorted_gaps[place]) / 2)
