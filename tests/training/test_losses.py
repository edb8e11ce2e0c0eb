"""The chunked vocabulary loss against optax's cross-entropy and plain automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe_jax.training.losses import DEFAULT_CHUNK, VocabularyLossOptions, vocabulary_loss

TOKENS, WIDTH, VOCABULARY = 24, 8, 40


def chunked_loss(hidden_TD, embedding_VD, targets_T, weights_T, z_loss=0.0, chunk=DEFAULT_CHUNK):
    options = VocabularyLossOptions(z_loss, chunk)
    return vocabulary_loss(hidden_TD, embedding_VD, targets_T, weights_T, options)


def plain_loss(hidden_TD, embedding_VD, targets_T, weights_T, z_loss):
    """Returns (objective, nll) as the definition says, from all logits at once, in float32."""
    logits_TV = hidden_TD.astype(jnp.float32) @ embedding_VD.astype(jnp.float32).T
    nll_T = optax.softmax_cross_entropy_with_integer_labels(logits_TV, targets_T)
    log_z_T = jax.nn.logsumexp(logits_TV, axis=-1)
    nll = jnp.sum(weights_T * nll_T)
    return nll + z_loss * jnp.sum(weights_T * log_z_T**2), nll


def make_inputs(seed=0, scale=1.0):
    """Returns random activations, embedding, targets and weights, a third of them 0."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(TOKENS, WIDTH)).astype(np.float32) * scale
    embedding = rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    targets = rng.integers(0, VOCABULARY, TOKENS).astype(np.int32)
    weights = rng.uniform(0.5, 2.0, TOKENS) * (np.arange(TOKENS) % 3 != 1)
    return hidden, embedding, targets, weights.astype(np.float32)


def value_and_gradients(loss, inputs, *args):
    """Returns objective, nll and the gradients of the objective."""
    gradient = jax.value_and_grad(
        lambda h, e: loss(h, e, *inputs[2:], *args), argnums=(0, 1), has_aux=True
    )
    (objective, nll), gradients = jax.jit(gradient)(*inputs[:2])
    return objective, nll, *gradients


@pytest.mark.parametrize(
    ("chunk", "z_loss"), [(1, 1e-2), (5, 0.0), (5, 1e-2), (8, 1e-2), (1000, 0.0), (1000, 1e-2)]
)
def test_equals_plain_cross_entropy(chunk, z_loss):
    """A chunk of 5 does not divide 24 tokens; 1000 is more than there are."""
    inputs = make_inputs()
    expected = value_and_gradients(plain_loss, inputs, z_loss)
    actual = value_and_gradients(chunked_loss, inputs, z_loss, chunk)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-5)
    # Without a gradient another path is taken.
    np.testing.assert_allclose(
        chunked_loss(*inputs, z_loss, chunk), expected[:2], rtol=2e-5, atol=2e-5
    )


def test_z_loss_is_in_the_objective_only():
    inputs = make_inputs()
    objective, nll = chunked_loss(*inputs, 1e-2, 7)
    without, nll_without = chunked_loss(*inputs, 0.0, 7)
    assert float(nll) == pytest.approx(float(nll_without), rel=1e-6)
    assert float(without) == pytest.approx(float(nll_without), rel=1e-6)
    assert objective > 1.01 * without


def test_nll_has_no_gradient():
    inputs = make_inputs()
    gradients = jax.grad(lambda h, e: chunked_loss(h, e, *inputs[2:], 1e-2, 7)[1], argnums=(0, 1))(
        *inputs[:2]
    )
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_gradient_scales_with_the_cotangent():
    """A mean over tokens and a sum have proportional gradients; nll next to it changes nothing."""
    inputs = make_inputs()

    def scaled(h, e):
        objective, nll = chunked_loss(h, e, *inputs[2:], 1e-2, 7)
        return objective / 16 + nll

    expected = value_and_gradients(plain_loss, inputs, 1e-2)[2:]
    for a, e in zip(jax.grad(scaled, argnums=(0, 1))(*inputs[:2]), expected, strict=True):
        np.testing.assert_allclose(a, e / 16, rtol=2e-5, atol=2e-6)


def test_tokens_of_weight_zero_do_not_count():
    hidden, embedding, targets, weights = make_inputs()
    changed = np.where(weights == 0, (targets + 1) % VOCABULARY, targets)
    noise = np.where(weights == 0, 3.0, 0.0).astype(np.float32)[:, None]
    one = value_and_gradients(chunked_loss, (hidden, embedding, targets, weights), 1e-2, 7)
    other = value_and_gradients(
        chunked_loss, (hidden + noise, embedding, changed, weights), 1e-2, 7
    )
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(one[2])[weights == 0], 0.0)
    assert np.all(np.abs(np.asarray(one[2])[weights > 0]).max(-1) > 0)


def test_bfloat16_activations_are_close_to_float32():
    """Products have 8 bits of mantissa: within 2% of the largest element, in the right types."""
    hidden, *rest = make_inputs()
    hidden = jnp.asarray(hidden, jnp.bfloat16)
    embedding = jnp.asarray(rest[0], jnp.bfloat16).astype(jnp.float32)
    inputs = (hidden, embedding, *rest[1:])
    expected = value_and_gradients(
        plain_loss, (hidden.astype(jnp.float32), embedding, *rest[1:]), 1e-3
    )
    actual = value_and_gradients(chunked_loss, inputs, 1e-3, 7)
    assert [a.dtype for a in actual] == [jnp.float32, jnp.float32, jnp.bfloat16, jnp.float32]
    # The inputs are the same and the logits float32, so values agree closely: op by op, too,
    # where the compiler cannot keep more precision than it was asked for.
    np.testing.assert_allclose(actual[:2], expected[:2], rtol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(chunked_loss(*inputs, 1e-3, 7), expected[:2], rtol=1e-5)
    for a, e in zip(actual[2:], expected[2:], strict=True):
        error = np.abs(np.asarray(a, np.float32) - e).max()
        assert error <= 0.02 * np.abs(e).max()


def test_bfloat16_gradients_are_scaled_without_a_bias():
    """1 / 700 in bfloat16 is 0.13% too small, and so would be all gradients but the embedding's.

    (Next to powers of 2, as in 1 / 511, the product itself rounds back; nothing helps there.)
    """
    hidden, *rest = make_inputs()
    hidden = jnp.asarray(hidden, jnp.bfloat16)

    def gradient(tokens):
        return jax.grad(lambda h: chunked_loss(h, *rest)[0] / tokens)(hidden).astype(jnp.float32)

    mean, total = gradient(700.0), gradient(1.0)
    ratio = jnp.sum(mean * total) / jnp.sum(total * total)
    np.testing.assert_allclose(ratio * 700, 1.0, atol=5e-4)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_logits_stay_finite(sign):
    """With logits of 1e4 and -1e4 the loss of a wrong target is their difference, exactly."""
    hidden = jnp.array([[sign * 1e4], [sign * 1e4]], jnp.float32)
    embedding = jnp.array([[1.0], [-1.0], [0.0]], jnp.float32)
    largest = 0 if sign > 0 else 1
    targets = jnp.array([largest, 1 - largest])
    weights = jnp.ones(2)
    inputs = (hidden, embedding, targets, weights)
    objective, nll, d_hidden, d_embedding = value_and_gradients(chunked_loss, inputs, 1e-4, 2)
    assert float(nll) == 2e4
    # log Z = 1e4 for both tokens.
    np.testing.assert_allclose(objective, 2e4 + 2 * 1e-4 * 1e8, rtol=1e-6)
    # The softmax is one-hot at the largest logit; d (z_loss log Z^2) = 2 z_loss log Z softmax.
    z_part = 2 * 1e-4 * 1e4
    np.testing.assert_allclose(d_hidden[:, 0], [sign * z_part, sign * (z_part + 2)], rtol=1e-5)
    assert np.all(np.isfinite(d_embedding))
