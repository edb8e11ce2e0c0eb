"""Health of a routing decision: what a researcher looks at when a router goes wrong.

All metrics count real tokens only and carry no gradient.

| name                | shape | meaning                                                        |
|---------------------|-------|----------------------------------------------------------------|
| `load`              | [E]   | share of all routed (token, expert) pairs on each expert       |
| `max_violation`     | []    | max load / mean load - 1; 0 is perfectly balanced              |
| `unrouted_share`    | []    | share of tokens that no expert takes (residual only)           |
| `experts_per_token` | [6]   | share of tokens with 0, 1, 2, 3, 4 and more than 4 experts     |
| `mean_experts`      | []    | mean number of experts per token                               |
| `entropy`           | []    | mean entropy of the router's distribution, nats                |
| `confidence`        | []    | mean of the largest probability                                |
"""

import jax
import jax.numpy as jnp

from moe_jax.routing.assignment import Assignment, RouterScores, Slots
from moe_jax.routing.losses import masked_mean

HISTOGRAM_BINS = ("0", "1", "2", "3", "4", ">4")


def routed_counts(assignment: Assignment, tokens: int, experts: int) -> tuple[jax.Array, jax.Array]:
    """Counts an assignment from both sides.

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


def health(assignment: Assignment, scores: RouterScores) -> dict[str, jax.Array]:
    """Returns the metrics of the module's table for one layer."""
    _, tokens, experts = scores.logits_PNE.shape
    mask_PN = scores.mask_PN
    per_token_PN, per_expert_E = routed_counts(assignment, tokens, experts)
    load_E = per_expert_E.astype(jnp.float32)
    load_E = load_E / jnp.maximum(load_E.sum(), 1.0)
    violation = jnp.maximum(load_E.max() * experts - 1.0, 0.0)
    bins_PNK = jax.nn.one_hot(jnp.minimum(per_token_PN, 5), len(HISTOGRAM_BINS))
    histogram = jnp.stack(
        [masked_mean(bins_PNK[..., i], mask_PN) for i in range(bins_PNK.shape[-1])]
    )
    log_p_PNE = jax.nn.log_softmax(scores.logits_PNE, axis=-1)
    entropy_PN = -jnp.sum(jnp.exp(log_p_PNE) * log_p_PNE, axis=-1)
    metrics = {
        "load": load_E,
        "max_violation": violation,
        "unrouted_share": histogram[0],
        "experts_per_token": histogram,
        "mean_experts": masked_mean(per_token_PN.astype(jnp.float32), mask_PN),
        "entropy": masked_mean(entropy_PN, mask_PN),
        "confidence": masked_mean(scores.probabilities_PNE.max(-1), mask_PN),
    }
    return jax.lax.stop_gradient(metrics)
