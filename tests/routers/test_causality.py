"""Law 3 for routers: what a router says about causality is what is measured.

Later positions are perturbed in all rows at once, so that one row's future cannot hide in
another row; position t is tried at every place of the sequence.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.pools import Pool
from moe_jax.routing.scores import router_logits

B, S, D, E = 4, 6, 5, 4
POOLS = [Pool("sequence"), Pool("position"), Pool("position", 2), Pool("batch"), Pool("batch", 2)]
ROUTERS = [ExpertChoice(pool=pool) for pool in POOLS]
ROUTERS += [ExpertThreshold(pool=pool, warmup_steps=0) for pool in POOLS]
ROUTERS += [
    TokenChoice(capacity_factor=0.5, order=order, pool=pool)
    for order in ("left_to_right", "choices_first", "priority")
    for pool in (Pool("sequence"), Pool("position"), Pool("batch", 2))
]
ROUTERS += [TokenChoice(pool=Pool("batch")), Adaptive(threshold=0.3)]
TRIALS = 5


@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def route(router, x_BSD, kernel_DE, state):
    split = router.pool.split
    logits_PNE = router_logits(split(x_BSD), kernel_DE)
    mask_BS, time_BS = jnp.ones((B, S), bool), jnp.tile(jnp.arange(S), (B, 1))
    scores = RouterScores(
        logits_PNE, jax.nn.softmax(logits_PNE), split(mask_BS), time_PN=split(time_BS)
    )
    return router(scores, state).assignment


def table(router, x, kernel):
    """Returns who takes whom and the weights, both [B, S, E], by explicit loops."""
    state = {"threshold": jnp.array([0.15, 0.2, 0.3, 0.35])}
    pools = oracles.pools(router.pool.kind, router.pool.rows, B, S)
    assignment = jax.device_get(route(router, x, kernel, state))
    count_PNE, weight_PNE = oracles.assignment_table(assignment, len(pools[0]))
    count, weight = np.zeros((B, S, E)), np.zeros((B, S, E))
    for p, tokens in enumerate(pools):
        for n, (b, s) in enumerate(tokens):
            count[b, s], weight[b, s] = count_PNE[p, n], weight_PNE[p, n]
    return count, weight


@functools.cache
def largest_changes(router):
    """Returns the most that weights and choices at <= t and at > t change by, over all t."""
    earlier = later = 0.0
    for trial in range(TRIALS):
        rng = np.random.default_rng(trial)
        x, noise = rng.normal(size=(2, B, S, D)).astype(np.float32)
        kernel = rng.normal(size=(D, E)).astype(np.float32)
        before = table(router, x, kernel)
        for t in range(S - 1):
            is_later = (np.arange(S) > t)[:, None]
            after = table(router, np.where(is_later, noise, x), kernel)
            for one, other in zip(before, after, strict=True):
                change = np.abs(one - other)
                earlier = max(earlier, change[:, : t + 1].max())
                later = max(later, change[:, t + 1 :].max())
    return earlier, later


@pytest.mark.parametrize("router", ROUTERS, ids=str)
def test_is_causal_agrees_with_what_is_measured(router):
    """Causal: not a bit changes. Not causal: a choice does change, so the claim has a meaning."""
    earlier, later = largest_changes(router)
    assert later == 1.0  # The perturbation is strong enough to move choices.
    assert router.is_causal == (earlier == 0.0)
    if not router.is_causal:
        assert earlier == 1.0


@pytest.mark.parametrize(
    ("router", "causal"),
    [
        (ExpertChoice(pool=Pool("sequence")), False),
        (ExpertChoice(pool=Pool("position")), True),
        (ExpertChoice(pool=Pool("batch")), False),
        (ExpertThreshold(pool=Pool("sequence"), warmup_steps=0), True),
        (ExpertThreshold(pool=Pool("batch"), warmup_steps=0), True),
        (ExpertThreshold(pool=Pool("batch"), warmup_steps=1), False),
        (ExpertThreshold(pool=Pool("position"), warmup_steps=1), True),
        (TokenChoice(), True),
        (TokenChoice(capacity_factor=1.0), True),
        (TokenChoice(capacity_factor=1.0, order="choices_first"), False),
        (TokenChoice(capacity_factor=1.0, order="priority"), False),
        (TokenChoice(capacity_factor=1.0, order="priority", pool=Pool("position")), True),
        (Adaptive(), True),
    ],
    ids=str,
)
def test_claims_are_those_of_the_papers(router, causal):
    """Zhou et al. 2022, section 6; PAPERS.md 2.4."""
    assert router.is_causal == causal
    assert router.causal().is_causal
