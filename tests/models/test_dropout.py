"""Dropout: its expectation, what shares a mask, where it acts, and that evaluation has none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import slow

from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.models import block, decoder, dropout
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.dropout import LayerDropout, Site, drop
from moe_jax.models.functional import LanguageModel
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool
from moe_jax.training.optimizers import adamw
from moe_jax.training.schedules import warmup_cosine
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, StepOptions, make_train_step

KEY = jax.random.key(7)
ROUTER = ExpertChoice(pool=Pool("sequence"))
RATE = 0.4


def test_a_unit_is_dropped_or_scaled_and_the_mean_is_kept():
    x = np.random.default_rng(0).normal(size=(64, 3, 200)).astype(np.float32)
    dropped = np.asarray(drop(jnp.asarray(x), RATE, KEY, 1))
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], x[kept] / (1 - RATE), rtol=1e-6)
    # Of 64 x 200 masks: 5 standard deviations.
    assert abs(kept[:, 0].mean() - (1 - RATE)) < 5 * (RATE * (1 - RATE) / kept[:, 0].size) ** 0.5


def test_the_expectation_does_not_depend_on_the_precision():
    ones = jnp.ones((1, 1, 8), jnp.bfloat16)
    keys = jax.random.split(KEY, 4000)
    means = jax.vmap(lambda key: drop(ones, RATE, key, 0).astype(jnp.float32))(keys).mean()
    # The standard deviation of the mean of 32,000 draws is 0.0046; 1 / 0.6 in bfloat16 is off by
    # up to 0.004, which rounding to nearest leaves as 0.001.
    assert abs(float(means) - 1) < 0.02


def test_positions_of_a_row_share_a_mask_and_rows_do_not():
    kept = np.asarray(LayerDropout(RATE, 0, KEY).units(jnp.ones((4, 6, 40)), Site.ATTENTION)) > 0
    assert (kept == kept[:, :1]).all()
    assert len({tuple(row) for row in kept[:, 0]}) == 4


def test_the_hidden_units_of_an_expert_are_dropped_for_all_its_tokens():
    """Masked second matrices are masked hidden units, in plain numpy."""
    rng = np.random.default_rng(0)
    x, wi, wo = (rng.normal(size=s).astype(np.float32) for s in [(2, 5, 4), (2, 4, 30), (2, 4, 30)])
    masked = LayerDropout(0, RATE, KEY).expert_units(jnp.asarray(wo))
    out = ExpertNetwork(jnp.asarray(wi), masked)(jnp.asarray(x))
    kept_EF = np.asarray(masked != 0).all(1)
    assert (np.asarray(masked != 0) == kept_EF[:, None]).all()
    assert 0 < kept_EF.sum() < kept_EF.size
    assert (kept_EF[0] != kept_EF[1]).any()
    hidden = np.einsum("erd,edf->erf", x, wi)
    hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    hidden = hidden * kept_EF[:, None] / (1 - RATE)
    np.testing.assert_allclose(out, np.einsum("erf,edf->erd", hidden, wo), rtol=2e-4, atol=2e-4)


def test_every_place_has_masks_of_its_own(monkeypatch):
    """One embedding; attention, experts or hidden units, and output of both layers of a group."""
    calls = []

    def record(x, rate, key, number, shared=-2):
        calls.append((number, x.shape, rate))
        return drop(x, rate, key, number, shared)

    monkeypatch.setattr(dropout, "drop", record)
    monkeypatch.setattr(decoder, "drop", record)
    model, variables = tiny.make(ROUTER, dropout=0.1, expert_dropout=RATE, num_layers=2)
    tokens = BatchContext.of_tokens(jnp.asarray(tiny.tokens(2, 8)))
    jax.eval_shape(lambda v: model.bind(v)(tokens, context=RoutingContext(KEY)), variables)
    wide, hidden = (2, 8, 32), (2, 8, 48)
    sites = len(Site)
    assert sorted(calls) == sorted(
        [
            (Site.EMBEDDING, wide, 0.1),
            (Site.ATTENTION, wide, 0.1),
            (Site.EXPERTS, (4, 32, 48), RATE),
            (Site.FEED_FORWARD, wide, 0.1),
            (sites + Site.ATTENTION, wide, 0.1),
            (sites + Site.HIDDEN, hidden, 0.1),
            (sites + Site.FEED_FORWARD, wide, 0.1),
        ]
    )
    assert block.LayerDropout is LayerDropout


@pytest.mark.parametrize("scan", [slow(True), False])
def test_evaluation_does_not_drop(scan):
    plain, variables = tiny.make(ROUTER, scan_layers=scan, num_layers=2)
    dropping, _ = tiny.make(ROUTER, scan_layers=scan, num_layers=2, dropout=0.5, expert_dropout=0.5)
    tokens = BatchContext.of_tokens(jnp.asarray(tiny.tokens(2, 8)))

    @functools.partial(jax.jit, static_argnums=0)
    def hidden(model, context=None):
        return model.bind(variables)(tokens, context=context).hidden_BSD

    np.testing.assert_array_equal(hidden(plain), hidden(dropping))
    np.testing.assert_array_equal(
        hidden(plain), hidden(dropping, RoutingContext(counts_experts=True))
    )
    assert np.abs(hidden(plain) - hidden(dropping, RoutingContext(KEY))).max() > 0.1


def step_text(**changes):
    shape = {"num_layers": 1, "moe_every": 1, "position": "rotary", "scan_layers": False}
    model = LanguageModel(tiny.config(**shape | changes), ROUTER)
    optimizer = adamw(warmup_cosine(1e-2, 10, 2))
    step = make_train_step(model, optimizer, LossConfig(), StepOptions())
    batch = jax.tree.map(jnp.asarray, tiny.make_batch(4, 8))
    state = jax.eval_shape(lambda: make_state(model, optimizer, 0))
    return step.lower(state, batch).compile({"xla_backend_optimization_level": 0}).as_text()


@pytest.mark.slow
def test_without_dropout_the_step_draws_nothing():
    """Expert choice draws no numbers: there is no random bit in the compiled step."""
    signs = ("threefry", "rng-bit-generator", "bernoulli")
    assert not any(sign in step_text() for sign in signs)
    assert any(sign in step_text(expert_dropout=0.1) for sign in signs)


@pytest.mark.slow
def test_random_routers_draw_what_they_draw_without_dropout():
    """The masks have keys of their own: the choices of the first layer stay the same."""
    router = TokenChoice(k=2, jitter=0.3)
    tokens = BatchContext.of_tokens(jnp.asarray(tiny.tokens(2, 8)))
    context = RoutingContext(KEY, keeps_choices=True)

    def weights(rate):
        model, variables = tiny.make(router, num_layers=1, moe_every=1, expert_dropout=rate)
        route = jax.jit(lambda v: model.bind(v)(tokens, context=context).routing.weight_BSE)
        return route(variables)

    found = [weights(0.0), weights(RATE)]
    np.testing.assert_array_equal(*found)
