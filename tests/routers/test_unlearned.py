"""Routing without a router matrix: hash, random, balanced by force, stochastic experts."""

import functools

import choice_oracles
import jax
import numpy as np
import oracles
import pytest

from moe_jax.routers.forced_balanced import ForcedBalanced
from moe_jax.routers.hash import Hash, balanced_table
from moe_jax.routers.random_experts import RandomExperts
from moe_jax.routers.thor import Thor
from moe_jax.routing.assignment import RouterScores

P, N, E, V = 2, 32, 4, 100
MASK = np.arange(N) < np.array([32, 20])[:, None]
TOKENS = np.random.default_rng(0).integers(V, size=(P, N)).astype(np.int32)
POSITIONS = np.tile(np.arange(N, dtype=np.int32), (P, 1))


@functools.partial(
    jax.jit,
    static_argnames=("router", "experts"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def compiled(router, tokens, positions, mask, key, state, experts):
    logits = jax.numpy.zeros((*tokens.shape, experts))
    scores = RouterScores(logits, jax.nn.softmax(logits), mask, tokens, positions, key=key)
    return router(scores, state)


def route(router, key=None, *, tokens=TOKENS, positions=POSITIONS, mask=MASK, experts=E):
    """Returns the experts [P, N, K] of all tokens, after checks that hold for all routers."""
    router.check(*tokens.shape, experts)
    key = None if key is None else jax.random.key(key)
    state = router.init_state(experts)
    output = jax.device_get(compiled(router, tokens, positions, mask, key, state, experts))
    pairs = output.assignment
    k = int(router.experts_per_token)
    count, weight = oracles.assignment_table(pairs, tokens.shape[1])
    assert count.max() == 1
    np.testing.assert_array_equal(count.sum(-1), k * mask)
    np.testing.assert_allclose(weight, count / k, rtol=1e-6)
    assert output.losses == {}
    assert not router.is_learned
    return np.asarray(pairs.expert_index_PNK)


@pytest.mark.parametrize("key", [None, 0])
def test_hash_modulo(key):
    """Zhou et al. 2022's baseline."""
    np.testing.assert_array_equal(route(Hash(), key)[..., 0], TOKENS % E)
    np.testing.assert_array_equal(route(Hash(), key, experts=7)[..., 0], TOKENS % 7)


def test_hash_by_a_random_table():
    """The same id, the same expert; all experts get ids; not the modulo; drawn once and for all."""
    router = Hash(method="random", vocabulary=V)
    table = router.table(E)
    assert table.shape == (V,)
    np.testing.assert_array_equal(route(router)[..., 0], table[TOKENS])
    np.testing.assert_array_equal(Hash(method="random", vocabulary=V).table(E), table)
    counts = np.bincount(Hash(method="random", vocabulary=8000).table(8), minlength=8)
    assert len(counts) == 8
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()
    assert 0.1 < (table == np.arange(V) % E).mean() < 0.5


@pytest.mark.parametrize("experts", [3, 8])
def test_balanced_table_equals_the_greedy_rule(experts):
    """With ties, with ids that never occur, and in no order."""
    rng = np.random.default_rng(0)
    for frequencies in (rng.integers(0, 6, 50), rng.integers(0, 1000, 50), np.zeros(10, int)):
        expected = choice_oracles.balanced_table(frequencies.tolist(), experts)
        np.testing.assert_array_equal(balanced_table(frequencies, experts), expected)


def test_balanced_table_balances_zipf():
    """Within the rarest ids' frequency; the modulo is far off, and so is a random table."""
    frequencies = 10**7 // np.arange(1, 2001)
    load = np.bincount(balanced_table(frequencies, 8), weights=frequencies)
    assert load.max() - load.min() <= frequencies[-1] * 2
    for other in (np.arange(2000) % 8, Hash(method="random", vocabulary=2000).table(8)):
        assert np.bincount(other, weights=frequencies).max() > 1.2 * load.mean()


def test_hash_by_the_balanced_table():
    frequencies = tuple(np.random.default_rng(1).integers(0, 50, V).tolist())
    router = Hash(method="balanced", frequencies=frequencies)
    table = np.array(choice_oracles.balanced_table(list(frequencies), E))
    np.testing.assert_array_equal(route(router)[..., 0], table[TOKENS])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("key", [None, 0])
def test_random_experts_are_distinct_and_uniform(k, key):
    """`route` checks that they are distinct. Five standard errors."""
    tokens = np.random.default_rng(2).integers(V, size=(2, 1000)).astype(np.int32)
    positions = np.tile(np.arange(1000, dtype=np.int32), (2, 1))
    mask = np.ones((2, 1000), bool)
    experts = route(RandomExperts(k=k), key, tokens=tokens, positions=positions, mask=mask)
    # In which order they come says nothing: uniform in each place.
    for place in range(k):
        share = np.bincount(experts[..., place].ravel(), minlength=E) / experts[..., 0].size
        error = np.sqrt(0.25 * 0.75 / experts[..., 0].size)
        assert (np.abs(share - 1 / E) < 5 * error).all()
    # Neither does the neighbour.
    same = (experts[:, 1:, 0] == experts[:, :-1, 0]).mean()
    assert abs(same - 1 / E) < 5 * error


@pytest.mark.parametrize("router", [RandomExperts(), RandomExperts(k=2), Thor()], ids=str)
def test_draws_change_with_the_key_and_only_with_it(router):
    keyed = [route(router, key) for key in range(6)]
    np.testing.assert_array_equal(keyed[0], route(router, 0))
    assert len({draw.tobytes() for draw in keyed}) > 1
    # What stands there does not matter while training.
    np.testing.assert_array_equal(keyed[0], route(router, 0, tokens=(TOKENS + 1) % V))


@pytest.mark.parametrize(
    "router", [RandomExperts(k=2), Thor(drawn_per="layer"), Thor(drawn_per="token")], ids=str
)
def test_without_a_key_id_and_position_decide(router):
    """Wherever they stand: decoding token by token is the forward pass over the whole text."""
    whole = route(router)
    np.testing.assert_array_equal(route(router), whole)
    order = np.random.default_rng(3).permutation(N)
    moved = route(
        router,
        tokens=TOKENS[::-1, order],
        positions=POSITIONS[::-1, order],
        mask=MASK[::-1, order],
    )
    np.testing.assert_array_equal(moved, whole[::-1, order])
    for other in (
        route(router, tokens=(TOKENS + 1) % V),
        route(router, positions=POSITIONS + 1),
    ):
        assert (other[..., 0] != whole[..., 0]).mean() > 0.3


@pytest.mark.parametrize(("k", "experts"), [(1, 4), (3, 8), (3, 4)])
@pytest.mark.parametrize("key", [None, 0])
def test_forced_balance_is_exact(k, experts, key):
    """N k = 32 k is a multiple of E."""
    chosen = route(ForcedBalanced(k=k), key, mask=np.ones_like(MASK), experts=experts)
    counts = np.bincount(chosen.ravel(), minlength=experts)
    assert counts.tolist() == [P * N * k // experts] * experts
    assert chosen[0, 1].tolist() == [(k + i) % experts for i in range(k)]


def test_forced_balance_goes_by_position_outside_of_training():
    """So that a token decoded alone goes where it went; in training by the place in the batch."""
    router = ForcedBalanced(k=1)
    shifted = route(router, positions=POSITIONS + 1)
    np.testing.assert_array_equal(shifted[..., 0], (POSITIONS + 1) % E)
    places = np.arange(P * N).reshape(P, N) % E
    np.testing.assert_array_equal(route(router, 0, positions=POSITIONS + 1)[..., 0], places)


@pytest.mark.parametrize("drawn_per", ["layer", "sequence", "token"])
def test_thor_draws_once_per_what_is_set(drawn_per):
    """Over 100 keys, 10 sequences each; the experts of the first token are uniform."""
    router, rows, keys = Thor(drawn_per=drawn_per), 10, 100
    tokens, positions = np.zeros((rows, N), np.int32), np.tile(POSITIONS[:1], (rows, 1))
    mask = np.ones((rows, N), bool)

    def draw(key):
        output = compiled(router, tokens, positions, mask, key, {}, E)
        return output.assignment.expert_index_PNK[..., 0]

    draws = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), keys)))
    assert draws.shape == (keys, rows, N)
    route(router, 0)
    in_layer = {len(np.unique(draw)) for draw in draws}
    in_sequence = {len(np.unique(row)) for draw in draws for row in draw}
    assert (in_layer == {1}) == (drawn_per == "layer")
    assert (in_sequence == {1}) == (drawn_per != "token")
    assert max(in_layer) == (1 if drawn_per == "layer" else E)
    share = np.bincount(draws[:, 0, 0], minlength=E) / keys
    assert (np.abs(share - 1 / E) < 5 * np.sqrt(0.25 * 0.75 / keys)).all()
    assert (share > 0).all()
    assert router.passes == 2


@pytest.mark.parametrize("drawn_per", ["layer", "sequence"])
def test_thor_draws_for_each_token_without_a_key(drawn_per):
    assert all(len(np.unique(row)) == E for row in route(Thor(drawn_per=drawn_per))[..., 0])
