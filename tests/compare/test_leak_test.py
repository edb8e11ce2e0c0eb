"""The random-token test of routers."""

import math

import numpy as np
import pytest

from moe_jax.compare import leak_test
from moe_jax.compare.leak_test import describe, random_batch, run_leak_test, small_router
from moe_jax.errors import UserError
from moe_jax.routers import ROUTERS
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool

SEQUENCE = ExpertChoice(2.0, Pool("sequence"))


def test_the_tokens_are_uniform_and_new_in_every_step():
    batches = [random_batch(0, step) for step in range(40)]
    targets = np.stack([batch.targets_BS for batch in batches])
    counts = np.bincount(targets.reshape(-1), minlength=5)
    expected = targets.size / 4
    assert counts[0] == 0
    assert np.abs(counts[1:] - expected).max() < 5 * math.sqrt(expected)
    assert len({np.asarray(batch.targets_BS).tobytes() for batch in batches}) == 40
    assert (batches[0].inputs_BS[:, 1:] == batches[0].targets_BS[:, :-1]).all()
    assert (np.asarray(random_batch(1, 0).targets_BS) != batches[0].targets_BS).any()


@pytest.mark.parametrize(("offset", "leaks"), [(-0.05, True), (0.0, False), (0.05, False)])
def test_a_loss_below_the_floor_is_a_leak(monkeypatch, offset, leaks):
    random = np.random.default_rng(0)
    losses = math.log(4) + offset + 0.02 * random.standard_normal(300)
    # What it had to learn before does not count.
    losses[:150] = 1.0
    monkeypatch.setattr(leak_test, "_losses", lambda router, steps, seed: list(losses))
    found = run_leak_test(SEQUENCE, 300, arm="ec")
    last = losses[180:]
    assert found.leaks is leaks
    assert (found.arm, found.router, found.steps) == ("ec", "expert_choice (sequence pool)", 300)
    assert found.floor == math.log(4)
    assert found.loss == pytest.approx(last.mean(), rel=1e-12)
    error = last.std(ddof=1) / math.sqrt(120)
    assert found.deviation == pytest.approx((last.mean() - math.log(4)) / error, rel=1e-9)


def test_what_depends_on_the_size_of_a_run_is_cut():
    assert small_router(ExpertThreshold(warmup_steps=4000), 300).warmup_steps == 30
    assert small_router(ExpertThreshold(warmup_steps=20), 300).warmup_steps == 20
    assert small_router(ExpertChoice(2.0, Pool("batch", rows=48)), 300).pool == Pool("batch")
    assert small_router(SEQUENCE, 300) is SEQUENCE
    assert leak_test.number_of_experts(TokenChoice(k=6)) == 12


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_can_be_tested(name):
    tested = small_router(ROUTERS[name](), 300)
    tested.check(leak_test.ROWS, leak_test.LENGTH, leak_test.number_of_experts(tested))
    assert describe(tested) == f"{tested.name} ({tested.pool.kind} pool)"


def test_a_router_that_cannot_be_tested_is_one_line():
    with pytest.raises(UserError, match=r"the random-token test of expert_choice: .*0\.01"):
        run_leak_test(ExpertChoice(0.01, Pool("sequence")), 300)


@pytest.mark.slow
def test_a_leak_is_found():
    """Of the router that tests/invariance/test_causality.py finds to leak, on fresh tokens."""
    found = run_leak_test(SEQUENCE, 300)
    assert found.leaks
    assert found.loss < math.log(4) - 0.05
