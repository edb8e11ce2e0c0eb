"""Optimisers against their papers' equations in numpy, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.training.optimizers import adafactor, adamw

STEPS = 3
# Magnitudes of the gradients of the steps: the growing second makes Adafactor clip its update.
MAGNITUDES = (0.1, 4.0, 0.5)


def rate(step):
    """Returns a learning rate that differs from step to step."""
    return 0.1 / (1.0 + step)


def rms(x):
    """Returns the root mean square."""
    return np.sqrt(np.mean(np.square(x)))


def numpy_adafactor(param, gradients, factored=False, clipping=1.0, relative=True, exponent=0.8):
    """Adafactor without momentum (Shazeer and Stern 2018, algorithms 4 to 6), step by step.

    eps1 = 1e-30 and eps2 = 1e-3 as in the paper; the second moment's decay is 1 - t^-0.8 with
    t = 1 for the first step, the factored estimate R C^T / mean(R).
    """
    param, moments = np.asarray(param, np.float64), [0.0, 0.0]
    for step, g in enumerate(np.asarray(gradients, np.float64)):
        beta = 1 - (step + 1.0) ** -exponent
        square = g**2 + 1e-30
        means = [square.mean(1), square.mean(0)] if factored else [square, square]
        moments = [beta * old + (1 - beta) * new for old, new in zip(moments, means, strict=True)]
        row, column = moments
        v = np.outer(row, column) / row.mean() if factored else row
        update = g / np.sqrt(v)
        update /= max(1.0, rms(update) / clipping)
        param = param - rate(step) * (max(rms(param), 1e-3) if relative else 1.0) * update
    return param


@functools.cache
def compiled(optimizer):
    """Returns the optimizer's update, compiled once."""
    return jax.jit(optimizer.transform.update)


def run(optimizer, params, gradients):
    """Returns parameters after a step on each of the stacked gradients."""
    params = {name: jnp.asarray(p, jnp.float32) for name, p in params.items()}
    state = optimizer.transform.init(params)
    for step in range(STEPS):
        g = {name: jnp.asarray(g[step], jnp.float32) for name, g in gradients.items()}
        updates, state = compiled(optimizer)(g, state, params)
        params = optax.apply_updates(params, updates)
    return params


def make(shapes, seed=0):
    """Returns random parameters and `STEPS` gradients for each."""
    rng = np.random.default_rng(seed)
    params = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    magnitudes = np.array(MAGNITUDES)
    gradients = {
        name: rng.normal(size=(STEPS, *shape)) * magnitudes.reshape(-1, *[1] * len(shape))
        for name, shape in shapes.items()
    }
    return params, gradients


# A name outside and one inside the stack, so that both ways through the optimiser are taken.
SINGLE, STACKED = "embedding", "groups/layers/0/ffn/wi"


@pytest.mark.parametrize(
    "settings",
    [{}, {"clipping": 0.5}, {"clipping": 100.0}, {"relative": False}, {"exponent": 0.5}],
)
def test_adafactor_unfactored(settings):
    shapes = [(1,), (7,), (5, 3), (127, 300)]
    params, gradients = make(
        {f"{prefix}{len(s)}{s[0]}": s for s in shapes for prefix in ("", "groups/")}
    )
    # A stack of one layer.
    stacked = [name for name in params if name.startswith("groups/")]
    for name in stacked:
        params[name], gradients[name] = params[name][None], gradients[name][:, None]
    optimizer = adafactor(
        rate,
        decay_exponent=settings.get("exponent", 0.8),
        update_clipping=settings.get("clipping", 1.0),
        multiply_by_parameter_scale=settings.get("relative", True),
    )
    moved = run(optimizer, params, gradients)
    for name in params:
        expected = numpy_adafactor(params[name], gradients[name], **settings)
        np.testing.assert_allclose(moved[name], expected, rtol=2e-5, atol=1e-6)


def test_adafactor_first_update_is_the_sign_of_the_gradient():
    """The decay of step 0 is 1 - 1^-0.8 = 0: update = g / sqrt(g^2), whatever the magnitude."""
    params, gradients = make({SINGLE: (6,), STACKED: (2, 6)})
    params = {name: jnp.asarray(p, jnp.float32) for name, p in params.items()}
    optimizer = adafactor(rate)
    state = optimizer.transform.init(params)
    for scale in (1e-4, 1.0, 1e4):
        g = {name: jnp.asarray(g[0] * scale, jnp.float32) for name, g in gradients.items()}
        updates, _ = optimizer.transform.update(g, state, params)
        expected = -0.1 * rms(params[SINGLE]) * np.sign(gradients[SINGLE][0])
        np.testing.assert_allclose(updates[SINGLE], expected, rtol=1e-5)


def test_adafactor_parameters_near_zero_move_at_the_least_scale():
    params, gradients = make({SINGLE: (6,), STACKED: (1, 6)})
    params = {name: p * 1e-6 for name, p in params.items()}
    moved = run(adafactor(rate), params, gradients)
    expected = numpy_adafactor(params[SINGLE], gradients[SINGLE])
    np.testing.assert_allclose(moved[SINGLE], expected, rtol=1e-4)
    # Three steps of at most 1e-3 * 0.1.
    assert 1e-4 < np.abs(expected).max() < 4e-4


@pytest.mark.parametrize("shape", [(128, 160), (160, 128)])
def test_adafactor_factored(shape):
    """Matrices of at least 128 x 128 keep row and column means of the squares only."""
    params, gradients = make({SINGLE: shape, STACKED: (1, 2)})
    moved = run(adafactor(rate), params, gradients)
    expected = numpy_adafactor(params[SINGLE], gradients[SINGLE], factored=True)
    np.testing.assert_allclose(moved[SINGLE], expected, rtol=1e-4, atol=1e-5)
    # The unfactored rule is another one.
    unfactored = numpy_adafactor(params[SINGLE], gradients[SINGLE])
    assert np.abs(np.asarray(moved[SINGLE]) - unfactored).max() > 1e-2


def test_adafactor_factored_state_is_small():
    params = {SINGLE: jnp.ones((256, 128)), STACKED: jnp.ones((4, 128, 256))}
    leaves = jax.tree.leaves(jax.eval_shape(adafactor(rate).transform.init, params))
    # Rows and columns of five matrices and some counters, not 5 * 32,768 second moments.
    assert 5 * 384 <= sum(leaf.size for leaf in leaves) < 5 * 384 + 64


def test_adafactor_without_a_schedule_has_the_papers():
    optimizer = adafactor()
    assert optimizer.learning_rate(0) == pytest.approx(0.01)
    params, gradients = make({SINGLE: (6,), STACKED: (2, 6)})
    params = {name: jnp.asarray(p, jnp.float32) for name, p in params.items()}
    g = {name: jnp.asarray(g[0], jnp.float32) for name, g in gradients.items()}
    updates, _ = optimizer.transform.update(g, optimizer.transform.init(params), params)
    np.testing.assert_allclose(np.abs(updates[SINGLE]), 0.01 * rms(params[SINGLE]), rtol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (5, 3), (128, 130), (3, 128, 128)])
def test_adafactor_layers_of_a_stack_are_on_their_own(shape):
    """Layers of very different scales move just as they would in an optimiser of their own."""
    layers, optimizer = 3, adafactor(rate)
    params, gradients = make({SINGLE: (2,), STACKED: (layers, *shape)})
    scales = np.array([1e-2, 1.0, 30.0]).reshape(-1, *[1] * len(shape))
    params[STACKED] = params[STACKED] * scales
    gradients[STACKED] = gradients[STACKED] * scales**-1
    moved = run(optimizer, params, gradients)[STACKED]
    for layer in range(layers):
        alone = run(
            optimizer,
            {SINGLE: params[STACKED][layer], STACKED: np.ones((1, 2))},
            {SINGLE: gradients[STACKED][:, layer], STACKED: np.ones((STEPS, 1, 2))},
        )[SINGLE]
        np.testing.assert_allclose(moved[layer], alone, rtol=1e-5, atol=1e-7)


def numpy_adamw(params, gradients, decay, max_norm, b1=0.9, b2=0.95, epsilon=1e-8):
    """AdamW with decoupled decay (Loshchilov and Hutter 2019) after clipping by global norm."""
    params = {name: np.asarray(p, np.float64) for name, p in params.items()}
    m, v = ({name: 0.0 for name in params} for _ in range(2))
    for step in range(STEPS):
        norm = np.sqrt(sum(np.sum(g[step] ** 2) for g in gradients.values()))
        factor = min(1.0, max_norm / norm) if max_norm else 1.0
        for name, param in params.items():
            g = gradients[name][step] * factor
            m[name] = b1 * m[name] + (1 - b1) * g
            v[name] = b2 * v[name] + (1 - b2) * g**2
            m_hat, v_hat = (x / (1 - b ** (step + 1)) for x, b in ((m[name], b1), (v[name], b2)))
            update = m_hat / (np.sqrt(v_hat) + epsilon) + decay.get(name, 0.0) * param
            params[name] = param - rate(step) * update
    return params


@pytest.mark.parametrize("max_norm", [0.0, 1.0, 1e6])
def test_adamw(max_norm):
    """Norm scales and position tables are not decayed; the global norm is over everything."""
    decayed = ("embedding", "groups/layers/0/ffn/router_kernel", "groups/layers/1/ffn/wi")
    kept = ("final_norm/scale", "groups/layers/0/attention/bias/table")
    params, gradients = make({name: (2, 5) for name in (*decayed, *kept)})
    optimizer = adamw(rate, weight_decay=0.3, max_gradient_norm=max_norm)
    moved = run(optimizer, params, gradients)
    expected = numpy_adamw(params, gradients, dict.fromkeys(decayed, 0.3), max_norm)
    for name in params:
        np.testing.assert_allclose(moved[name], expected[name], rtol=1e-5, atol=1e-6)


def test_adamw_defaults_clip_to_a_norm_of_one_and_decay_a_tenth():
    params, gradients = make({"embedding": (3, 4), STACKED: (2, 3)})
    moved = run(adamw(rate), params, gradients)
    expected = numpy_adamw(params, gradients, dict.fromkeys(params, 0.1), 1.0)
    for name in params:
        np.testing.assert_allclose(moved[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_adafactor_clips_by_the_global_norm_first(max_norm):
    params, gradients = make({SINGLE: (7,), STACKED: (1, 5)})
    moved = run(adafactor(rate, max_gradient_norm=max_norm), params, gradients)
    norms = np.sqrt(sum((g.reshape(STEPS, -1) ** 2).sum(1) for g in gradients.values()))
    factors = np.minimum(1.0, max_norm / norms)
    for name, g in gradients.items():
        clipped = g * factors.reshape(-1, *[1] * (g.ndim - 1))
        expected = numpy_adafactor(params[name], clipped)
        np.testing.assert_allclose(moved[name], expected, rtol=2e-5, atol=1e-6)


def test_adamw_decays_the_matrices_of_a_model_and_nothing_else():
    """Without gradients only decay moves: by rate * decay of every kernel, not of a norm."""
    config = ModelConfig(
        vocab_size=16, num_layers=2, d_model=4, num_heads=1, head_dim=4, d_ff=4, num_experts=2
    )
    shapes = LanguageModel(config, ExpertChoice()).abstract().params
    params = {name: jnp.ones(leaf.shape) for name, leaf in shapes.items()}
    optimizer = adamw(rate, weight_decay=0.3)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = compiled(optimizer)(zeros, jax.jit(optimizer.transform.init)(params), params)
    for name, update in updates.items():
        kept = "norm" in name or "/bias/" in name
        np.testing.assert_allclose(update, 0.0 if kept else -0.1 * 0.3, rtol=1e-6, err_msg=name)
    assert sum("norm" in name for name in params) == 5
    assert sum("/bias/" in name for name in params) == 2
