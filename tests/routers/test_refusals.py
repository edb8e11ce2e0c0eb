"""What routing refuses, with a message that says what would be right."""

import pytest

from moe_jax.errors import UserError
from moe_jax.routers import get_router
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.forced_balanced import ForcedBalanced
from moe_jax.routers.hash import Hash
from moe_jax.routers.random_experts import RandomExperts
from moe_jax.routers.thor import Thor
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool

CONSTRUCTORS = [
    (TokenChoice, {"k": 1}, "k = 1 with normalise = True.*normalise = False"),
    (TokenChoice, {"k": 0}, "k must be a whole number above 0, not 0"),
    (TokenChoice, {"k": 2.0}, "k must be a whole number above 0, not 2.0"),
    (TokenChoice, {"score": "softmaxx"}, "score = 'softmaxx'.*Did you mean 'softmax'"),
    (TokenChoice, {"order": "choice_first"}, "order.*Did you mean 'choices_first'"),
    (TokenChoice, {"second_choice": "randon"}, "second_choice.*Did you mean 'random'"),
    (TokenChoice, {"balance": "quantiles"}, "balance = .*Did you mean 'quantile'"),
    (TokenChoice, {"balance_over": "pools"}, "balance_over.*Did you mean 'pool'"),
    (TokenChoice, {"capacity_factor": 0.0}, "capacity_factor must be above 0, or None"),
    (TokenChoice, {"capacity_factor": -1.0}, "capacity_factor must be above 0.*not -1.0"),
    (
        TokenChoice,
        {"capacity_factor": float("nan")},
        "capacity_factor must be above 0 and finite.*not nan",
    ),
    (TokenChoice, {"k": 3, "second_choice": "random"}, "needs k = 2 and normalise.*not k = 3"),
    (TokenChoice, {"normalise": False, "second_choice": "random"}, "normalise = False"),
    (TokenChoice, {"jitter": 1.0}, r"jitter must be in \[0, 1\), not 1.0"),
    (TokenChoice, {"jitter": -0.1}, "jitter must be in"),
    (TokenChoice, {"noise": -1.0}, "noise must be 0 or more, not -1.0"),
    (TokenChoice, {"noise": float("inf")}, "noise must be 0 or more and finite, not inf"),
    (TokenChoice, {"bias_rate": float("nan")}, "bias_rate must be 0 or more and finite, not nan"),
    (TokenChoice, {"groups": 4, "top_groups": 5}, "top_groups = 5 must be from 1 to .*groups = 4"),
    (TokenChoice, {"top_groups": 0}, "top_groups must be a whole number above 0, not 0"),
    (TokenChoice, {"balance": "quantile", "score": "sqrt_softplus"}, "softmax or sigmoid"),
    (Adaptive, {"threshold": 1.1}, "threshold must be from 0 to 1 .*always two.*not 1.1"),
    (Adaptive, {"threshold": -0.1}, "threshold must be from 0"),
    (Adaptive, {"threshold": float("nan")}, "threshold must be from 0"),
    (Adaptive, {"expected_experts": 0.9}, "expected_experts must be from 1 to 2, not 0.9"),
    (Adaptive, {"expected_experts": 2.1}, "expected_experts must be from 1 to 2, not 2.1"),
    (Adaptive, {"gap": "soft_max"}, "gap = 'soft_max'.*Did you mean 'softmax'"),
    (Hash, {"method": "module"}, "method = 'module'.*Did you mean 'modulo'"),
    (Hash, {"method": "balanced"}, "'balanced' needs Hash.frequencies"),
    (Hash, {"method": "random"}, "'random' needs Hash.vocabulary"),
    (RandomExperts, {"k": 0}, "RandomExperts.k must be a whole number above 0, not 0"),
    (RandomExperts, {"k": 1.5}, "RandomExperts.k must be a whole number above 0, not 1.5"),
    (ForcedBalanced, {"k": -1}, "ForcedBalanced.k must be a whole number above 0, not -1"),
    (Thor, {"drawn_per": "tokens"}, "drawn_per = 'tokens'.*Did you mean 'token'"),
    (Thor, {"drawn_per": "sequence", "pool": Pool("batch")}, "needs a sequence pool"),
    (ExpertThreshold, {"capacity_factor": 0.0}, "capacity_factor must be above 0, not 0.0"),
    (ExpertThreshold, {"threshold_decay": 1.0}, "threshold_decay must be in"),
    (ExpertThreshold, {"warmup_steps": -1}, "warmup_steps must be a whole number, 0 or more"),
    (ExpertThreshold, {"warmup_steps": 1.5}, "warmup_steps must be a whole number, 0 or more"),
    (ExpertChoice, {"capacity_factor": 0.0}, "capacity_factor must be above 0, not 0.0"),
    (get_router, {"name": "swich"}, "unknown router 'swich'; known: adaptive, .*'switch'"),
    (get_router, {"name": "Topk"}, "Did you mean 'topk'"),
]

QUANTILE = {"k": 2, "balance": "quantile"}
# Router, batch, length, experts.
CHECKS = [
    (TokenChoice(k=3), (4, 8, 2), "k = 3 is more than the 2 experts"),
    (TokenChoice(k=2, groups=3, top_groups=2), (4, 8, 8), "groups = 3 does not divide 8 experts"),
    (TokenChoice(k=5, groups=4, top_groups=2), (4, 8, 8), "k = 5 is more than the 4 experts"),
    (TokenChoice(**QUANTILE), (4, 8, 2), "more than k = 2 experts to choose from, not 2"),
    (TokenChoice(**QUANTILE, groups=2), (4, 8, 4), "more than k = 2 experts .* not 2"),
    (TokenChoice(capacity_factor=0.25), (64, 15, 8), "sequence pool: capacity is zero"),
    (
        TokenChoice(capacity_factor=1.0, pool=Pool("position")),
        (31, 4096, 64),
        "token choice, position pool: capacity is zero.*at least 32 tokens",
    ),
    (TokenChoice(pool=Pool("batch", 3)), (4, 8, 4), "does not divide a batch of 4 rows"),
    (TokenChoice(), (4, 8, 0), "at least 1 expert, not 0"),
    (Adaptive(), (4, 8, 1), "2 or more experts, not 1"),
    (RandomExperts(k=5), (4, 8, 4), "RandomExperts.k = 5 is more than the 4 experts"),
    (ForcedBalanced(k=5), (4, 8, 4), "ForcedBalanced.k = 5 is more than the 4 experts"),
    (Hash(pool=Pool("position", 3)), (4, 8, 4), "does not divide"),
    (ExpertThreshold(Pool("position")), (31, 8, 64), "expert threshold.*capacity is zero"),
    (ExpertThreshold(capacity_factor=5.0), (4, 8, 4), "more than the 4 experts"),
]


@pytest.mark.parametrize(("make", "arguments", "reason"), CONSTRUCTORS)
def test_impossible_settings_are_refused(make, arguments, reason):
    with pytest.raises(UserError, match=reason):
        make(**arguments)


@pytest.mark.parametrize(("router", "sizes", "reason"), CHECKS)
def test_sizes_that_cannot_work_are_refused(router, sizes, reason):
    with pytest.raises(UserError, match=reason):
        router.check(*sizes)


@pytest.mark.parametrize(
    ("router", "sizes"),
    [
        (TokenChoice(k=2), (4, 8, 2)),
        (TokenChoice(k=4, groups=4, top_groups=2), (4, 8, 8)),
        (TokenChoice(**QUANTILE), (4, 8, 3)),
        (TokenChoice(capacity_factor=0.25), (64, 16, 8)),
        (TokenChoice(capacity_factor=1.0, pool=Pool("position")), (32, 4096, 64)),
        (TokenChoice(capacity_factor=100.0), (1, 1, 4)),  # More slots than tokens do no harm.
        (TokenChoice(), (1, 1, 64)),  # Decoding: one token.
        (Adaptive(), (1, 1, 2)),
        (RandomExperts(k=4), (4, 8, 4)),
        (ForcedBalanced(k=4), (1, 1, 4)),
        (Hash(), (1, 1, 1)),
        (Thor(), (1, 1, 1)),
    ],
)
def test_the_smallest_sizes_that_work_are_accepted(router, sizes):
    router.check(*sizes)
