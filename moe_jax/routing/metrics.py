"""Metrics of routing decisions, to diagnose routers.

All metrics count real tokens only and carry no gradient.

| name                | shape | meaning                                                        |
|---------------------|-------|----------------------------------------------------------------|
| `load`              | [E]   | fraction of all routed (token, expert) pairs on each expert    |
| `max_violation`     | []    | max load / mean load - 1; 0 is perfectly balanced              |
| `dropped_share`     | []    | fraction of the requested pairs that were dropped              |
| `unrouted_share`    | []    | fraction of tokens without an expert (residual only)           |
| `experts_per_token` | [6]   | share of tokens with 0, 1, 2, 3, 4 and more than 4 experts     |
| `mean_experts`      | []    | mean number of experts per token                               |
| `entropy`           | []    | mean entropy of the router's distribution, nats                |
| `confidence`        | []    | mean of the largest probability                                |
| `gap_histogram`     | [10]  | share of tokens by the gap between the two largest             |
|                     |       | probabilities, in bins of 0.1                                  |
| `over_cap_share`    | []    | capped expert choice: share of tokens that TopK(A, k) alone    |
|                     |       | would assign more experts than the cap                         |
| `predictor_accuracy`| []    | predicted expert choice: share of the decisions, one for each  |
|                     |       | token and expert, that are predicted right                     |

`health` returns means over tokens, which can be summed over micro-batches and devices; `summarise`
then computes the ratios.
"""

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import Assignment, RouterScores, Slots
from moe_jax.routing.losses import masked_mean
from moe_jax.types import CountE, CountPN, MaskPN, ScoresPNE, ValuePN

HISTOGRAM_BINS = ("0", "1", "2", "3", "4", ">4")
GAP_BINS = 10
# Means over tokens from which `summarise` computes ratios.
_PAIRS, _WANTED = "pairs", "wanted_pairs"


def routed_counts(assignment: Assignment, tokens: int, experts: int) -> tuple[CountPN, CountE]:
    """Counts the experts of each token and the tokens of each expert.

    Returns:
        experts per token [P, N] and tokens per expert [E], both int32.
    """
    if isinstance(assignment, Slots):
        filled_PEC = assignment.filled_PEC.astype(jnp.int32)
        pools = filled_PEC.shape[0]
        rows_P11 = jnp.arange(pools, dtype=jnp.int32)[:, None, None]
        zeros_PN = jnp.zeros((pools, tokens), jnp.int32)
        per_token_PN = zeros_PN.at[rows_P11, assignment.token_index_PEC].add(filled_PEC)
        return per_token_PN, filled_PEC.sum((0, 2))
    chosen_PNK = assignment.chosen_PNK.astype(jnp.int32)
    per_expert_E = jnp.zeros((experts,), jnp.int32)
    per_expert_E = per_expert_E.at[assignment.expert_index_PNK].add(chosen_PNK)
    return chosen_PNK.sum(-1), per_expert_E


def health(
    assignment: Assignment, scores: RouterScores, wanted_PN: CountPN | None = None
) -> dict[str, jax.Array]:
    """Returns means over the real tokens of one layer, for `summarise`.

    Args:
        assignment: the assignment of tokens to experts.
        scores: the inputs of the router.
        wanted_PN: number of experts that each token requested; by default, the number that it
            received.
    """
    _, tokens, num_experts = scores.logits_PNE.shape
    mask_PN = scores.mask_PN
    per_token_PN, per_expert_E = routed_counts(assignment, tokens, num_experts)
    wanted_PN = per_token_PN if wanted_PN is None else wanted_PN
    real = jnp.maximum(mask_PN.sum(dtype=jnp.float32), 1.0)
    bins = jax.nn.one_hot(jnp.minimum(per_token_PN, 5), len(HISTOGRAM_BINS))
    histogram = _mean_of_bins(bins, mask_PN)
    log_p_PNE = jax.nn.log_softmax(scores.logits_PNE, axis=-1)
    entropy_PN = -jnp.sum(jnp.exp(log_p_PNE) * log_p_PNE, axis=-1)
    largest_PN, gap_PN = _largest_and_gap(scores.probabilities_PNE)
    gap_bin_PN = jnp.minimum((gap_PN * GAP_BINS).astype(jnp.int32), GAP_BINS - 1)
    metrics = {
        _PAIRS: per_expert_E / real,
        _WANTED: masked_mean(wanted_PN.astype(jnp.float32), mask_PN),
        "unrouted_share": histogram[0],
        "experts_per_token": histogram,
        "mean_experts": masked_mean(per_token_PN.astype(jnp.float32), mask_PN),
        "entropy": masked_mean(entropy_PN, mask_PN),
        "confidence": masked_mean(largest_PN, mask_PN),
        "gap_histogram": _mean_of_bins(jax.nn.one_hot(gap_bin_PN, GAP_BINS), mask_PN),
    }
    return jax.lax.stop_gradient(metrics)


def summarise(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the metrics in the table above from the means of a batch, with any leading axes."""
    if _PAIRS not in means:
        return means
    metrics = {name: value for name, value in means.items() if name not in (_PAIRS, _WANTED)}
    pairs_E, wanted, routed = means[_PAIRS], means[_WANTED], means["mean_experts"]
    total = pairs_E.sum(-1)
    load_E = pairs_E / jnp.where(total > 0, total, 1.0)[..., None]
    metrics["load"] = load_E
    metrics["max_violation"] = jnp.maximum(load_E.max(-1) * load_E.shape[-1] - 1.0, 0.0)
    dropped = 1.0 - routed / jnp.where(wanted > 0, wanted, 1.0)
    metrics["dropped_share"] = jnp.where(wanted > 0, jnp.clip(dropped, 0.0, 1.0), 0.0)
    return metrics


def _mean_of_bins(bins: jax.Array, mask_PN: MaskPN) -> jax.Array:
    real = jnp.maximum(mask_PN.sum(dtype=jnp.float32), 1.0)
    return jnp.sum(jnp.where(mask_PN[..., None], bins, 0.0), axis=(0, 1)) / real


def _largest_and_gap(p_PNE: ScoresPNE) -> tuple[ValuePN, ValuePN]:
    """Returns the largest probability, and its difference from the second largest.

    With a single expert the second largest probability is 0.
    """
    first_PN1 = jnp.argmax(p_PNE, axis=-1, keepdims=True)
    largest_PN = p_PNE.max(-1)
    is_first_PNE = jnp.arange(p_PNE.shape[-1]) == first_PN1
    second_PN = jnp.where(is_first_PNE, 0.0, p_PNE).max(-1)
    return largest_PN, largest_PN - second_PN
