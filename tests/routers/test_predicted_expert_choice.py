"""The predictor learns by logistic regression what experts choose, and leaves the model alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import minimize

from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.predicted_expert_choice import PredictedExpertChoice
from moe_jax.routing.assignment import RouterScores
from moe_jax.routing.pools import Pool

P, N, E = 2, 24, 4
MASK = np.arange(N) < np.array([24, 13])[:, None]


def make_scores(logits):
    return RouterScores(logits, jax.nn.softmax(logits), jnp.asarray(MASK))


def draw(seed, scale=2.0):
    return (scale * np.random.default_rng(seed).normal(size=(P, N, E))).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def route(router, logits, state):
    return router(make_scores(logits), state)


def numpy_features(logits):
    """Returns log p + log E and 1 of the real tokens, [T, E + 1]."""
    real = logits[MASK].astype(np.float64)
    log_p = real - np.log(np.exp(real).sum(1, keepdims=True))
    return np.concatenate([log_p + np.log(E), np.ones((len(real), 1))], axis=1)


def cross_entropy(predictor, features, chosen):
    logits = features @ predictor.T
    return (np.logaddexp(0.0, logits) - chosen * logits).sum()


@pytest.mark.slow
def test_experts_choose_as_in_expert_choice():
    """And the gradient of the model is the same: the predictor's ends before it."""
    predicted, plain = (cls(1.5, Pool("batch")) for cls in (PredictedExpertChoice, ExpertChoice))
    state, logits = predicted.init_state(E), draw(0)

    def total(router, logits):
        output = router(make_scores(logits), state)
        values = jax.tree.leaves((output.assignment.weight_PEC, output.losses, output.statistics))
        return sum(jnp.sum(value**2) for value in values), output

    (_, made), gradient = jax.value_and_grad(total, 1, has_aux=True)(predicted, logits)
    (_, expected), wanted = jax.value_and_grad(total, 1, has_aux=True)(plain, logits)
    for one, other in zip(
        *map(jax.tree.leaves, (made.assignment, expected.assignment)), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(gradient, wanted)


def test_its_gradient_is_that_of_the_cross_entropy():
    """By differences of a plain numpy version, over real tokens only."""
    router, logits = PredictedExpertChoice(1.0, Pool("sequence")), draw(1)
    random = np.random.default_rng(2)
    predictor = random.normal(size=(E, E + 1))
    state = router.init_state(E) | {"predictor": jnp.asarray(predictor, jnp.float32)}
    output = route(router, logits, state)
    _, chosen_PNE = output.assignment.dense(N)
    chosen, features = np.asarray(chosen_PNE)[MASK], numpy_features(logits)
    gradient = np.asarray(output.statistics["predictor_gradient"])
    assert output.statistics["predictor_tokens"] == MASK.sum()
    for expert, feature in [(0, 0), (1, 3), (3, 4), (2, 0)]:
        step = np.zeros_like(predictor)
        step[expert, feature] = 1e-5
        up, down = (cross_entropy(predictor + s, features, chosen) for s in (step, -step))
        assert gradient[expert, feature] == pytest.approx((up - down) / 2e-5, rel=1e-3, abs=1e-4)
    is_right = (features @ predictor.T > 0) == chosen
    assert output.metrics["predictor_accuracy"] == pytest.approx(is_right.mean(), abs=1e-6)


def test_an_update_is_a_step_of_adam_in_each_layer():
    router = PredictedExpertChoice(1.0, Pool("batch"), predictor_rate=0.1)
    state = jax.tree.map(lambda a: jnp.stack([a, a]), router.init_state(E))
    adam, trees = optax.adam(0.1), [{"w": state["predictor"][0]}, {"w": state["predictor"][1]}]
    moments = [adam.init(tree) for tree in trees]
    for step in range(3):
        layers = [route(router, draw(10 + 2 * step + n), _of(state, n)).statistics for n in (0, 1)]
        # The second layer has no tokens in the second step.
        if step == 1:
            layers[1] = jax.tree.map(jnp.zeros_like, layers[1])
        statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        state = router.update_state(state, statistics, jnp.int32(step))
        for n in (0, 1):
            if step == 1 and n == 1:
                continue
            tokens = layers[n]["predictor_tokens"]
            gradient = {"w": layers[n]["predictor_gradient"] / tokens}
            update, moments[n] = adam.update(gradient, moments[n])
            trees[n] = optax.apply_updates(trees[n], update)
        np.testing.assert_allclose(state["predictor"][0], trees[0]["w"], rtol=1e-5, atol=1e-6)
    assert (state["predictor"][1] != state["predictor"][0]).any()


def _of(state, layer):
    return {name: value[layer] for name, value in state.items()}


def test_at_first_it_is_a_threshold_of_one_in_e():
    router, logits = PredictedExpertChoice(), draw(3)
    output = route(router.causal(), logits, router.init_state(E))
    weight, chosen = map(np.asarray, output.assignment.dense(N))
    probabilities = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_array_equal(chosen, (probabilities > 1 / E) & MASK[..., None])
    np.testing.assert_allclose(weight, np.where(chosen, probabilities, 0.0))
    assert router.causal().is_causal
    assert router.causal().causal() == router.causal()
    assert router.causal().experts_per_token == router.capacity_factor


@pytest.mark.slow
def test_it_fits_better_than_the_experts_own_probability():
    """Two pools of different scores: a token's other probabilities tell in which of them it is.

    The best logistic regressions on the expert's own feature alone are scipy's.
    """
    router = PredictedExpertChoice(1.0, Pool("sequence"), predictor_rate=0.05)
    logits = draw(5, 1.0)
    logits[1] += np.array([-3.0, 3.0, 0.0, 0.0], np.float32)
    state = jax.tree.map(lambda a: a[None], router.init_state(E))
    for step in range(400):
        output = route(router, logits, _of(state, 0))
        statistics = jax.tree.map(lambda a: a[None], output.statistics)
        state = router.update_state(state, statistics, jnp.int32(step))
    features = numpy_features(logits)
    chosen = np.asarray(output.assignment.dense(N)[1])[MASK]
    fitted = np.asarray(state["predictor"][0], np.float64)
    alone = sum(
        minimize(
            lambda w, e=expert: cross_entropy(w[None], features[:, [e, E]], chosen[:, [e]]),
            np.array([1.0, 0.0]),
        ).fun
        for expert in range(E)
    )
    assert cross_entropy(fitted, features, chosen) < 0.9 * alone
