"""The training step against plain automatic differentiation, and what must not change it.

Updates are compared with stochastic gradient descent: they are then the gradients themselves.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest
from tiers import mostly_slow, slow

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.config import REMAT_POLICIES, ModelConfig
from moe_jax.models.functional import LanguageModel, Variables
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers import ROUTERS
from moe_jax.routers.adaptive import Adaptive
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.hash import Hash
from moe_jax.routers.random_experts import RandomExperts
from moe_jax.routers.thor import Thor
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import Pool
from moe_jax.training.loss_spike_guard import make_guard
from moe_jax.training.optimizers import Optimizer, adamw
from moe_jax.training.schedules import warmup_cosine
from moe_jax.training.state import TrainState, make_state
from moe_jax.training.step import LossConfig, StepOptions, forward, make_train_step

VOCABULARY, ROWS, LENGTH = 64, 4, 16
SHAPE = {
    "vocab_size": VOCABULARY,
    "num_layers": 2,
    "d_model": 16,
    "num_heads": 2,
    "head_dim": 8,
    "d_ff": 32,
    "num_experts": 4,
    "moe_every": 1,
}
# Where one layer is enough: faster to compile.
ONE = {"num_layers": 1, "position": "rotary", "scan_layers": False}
SEQUENCE = ExpertChoice(2.0, Pool("sequence"))
LOSS = LossConfig(z_loss=1e-2, weights={"router_z": 1e-2}, chunk=24)
RATE = 0.5
SGD = Optimizer(optax.sgd(RATE), lambda step: RATE)
POOLS = ("sequence", "batch", "position")


@functools.cache
def make_model(router=SEQUENCE, **shape):
    """Returns a small model, changed in some settings."""
    return LanguageModel(ModelConfig(**SHAPE | shape), router)


@functools.cache
def make_variables(router=SEQUENCE, **shape):
    """Returns initial arrays."""
    return make_model(router, **shape).init(jax.random.key(0))


def make_batch(lengths=(LENGTH,) * ROWS, packed=True):
    """Returns random rows of these lengths, a fifth of their targets not counted in the loss.

    The first inputs differ from row to row, as after a prompt: equal ones would tie.
    """
    rng = np.random.default_rng(0)
    real = np.arange(LENGTH) < np.array(lengths)[:, None]
    targets = np.where(real, rng.integers(1, VOCABULARY, real.shape), 0).astype(np.int32)
    weights = (real & (rng.random(real.shape) > 0.2)).astype(np.float32)
    inputs = np.roll(targets, 1, axis=1)
    inputs[:, 0] = np.arange(ROWS) + 11
    if not packed:
        return Batch(inputs, targets, weights)
    # Two documents a row.
    starts = np.array([5, 8, 3, 12], np.int32)[:, None]
    at = np.arange(LENGTH, dtype=np.int32)
    second = (at >= starts).astype(np.int32)
    inputs = np.where(at == starts, 0, inputs)
    return Batch(inputs, targets, weights, at - second * starts, (1 + second) * real)


def plain_objective(params, router_state, batch, model):
    """Returns (objective, nll) from all logits at once, as the definitions say."""
    bound = Variables(params, router_state)
    output = forward(model, bound, batch)
    logits = model.bind(bound).logits(output.hidden_BSD)
    weights = batch.weights_BS / jnp.sum(batch.weights_BS)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets_BS)
    z = jnp.sum(weights * jax.nn.logsumexp(logits, axis=-1) ** 2)
    nll, router_z = jnp.sum(weights * nll), jnp.sum(output.routing.losses["router_z"])
    return nll + LOSS.z_loss * z + LOSS.weights["router_z"] * router_z, nll


PLAIN_GRADIENT = jax.jit(jax.value_and_grad(plain_objective, has_aux=True), static_argnames="model")


def plain_gradient(variables, batch, model):
    """Returns ((objective, nll), gradients) by plain automatic differentiation."""
    return PLAIN_GRADIENT(variables.params, variables.router_state, batch, model)


@functools.cache
def make_sgd_step(model, accumulation, loss=LOSS, seed=0):
    """Returns the step under test, with gradient descent."""
    return make_train_step(model, SGD, loss, StepOptions(accumulation, seed))


def sgd_step(variables, batch, model, accumulation=1, **settings):
    """Returns metrics, new parameters and new router state after one step."""
    # The step takes over its state.
    copy = jax.tree.map(jnp.array, variables)
    optimizer_state = SGD.transform.init(copy.params)
    state = TrainState(jnp.zeros((), jnp.int32), copy, optimizer_state, make_guard())
    state, metrics = make_sgd_step(model, accumulation, **settings)(state, batch)
    assert int(state.step) == 1
    return metrics, state.variables.params, state.variables.router_state


def assert_descended(variables, stepped, expected):
    """Asserts loss, objective and parameters, given objective, nll and gradients."""
    (objective, nll), gradients = expected
    metrics, params, _ = stepped
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
    for name, value in {"objective": objective, "loss": nll, "gradient_norm": norm}.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-5, err_msg=name)
    assert_same(params, {n: variables.params[n] - RATE * g for n, g in gradients.items()})


def assert_same(actual, expected, rtol=1e-4, atol=2e-6):
    """Asserts that dictionaries of arrays are the same up to rounding."""
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol, atol, err_msg=name)


def assert_all_same(actual, expected):
    """Asserts that two steps gave the same metrics, parameters and router states."""
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


@pytest.mark.parametrize("accumulation", [slow(1), 2, slow(4)])
def test_step_is_plain_gradient_descent(accumulation):
    """Law 2: micro-batches of rows that count different numbers of targets add up to the batch."""
    variables, batch = make_variables(), make_batch()
    assert len(set(batch.weights_BS.sum(1).tolist())) > 1
    expected = plain_gradient(variables, batch, make_model())
    assert min(np.abs(g).max() for g in expected[1].values()) > 1e-5
    stepped = sgd_step(variables, batch, make_model(), accumulation=accumulation)
    assert_descended(variables, stepped, expected)
    # Of its targets only a part counts in the loss; all tokens are worked on.
    assert stepped[0]["target_tokens"] == np.sum(batch.weights_BS)
    assert stepped[0]["tokens"] == np.sum(batch.targets_BS != 0) > np.sum(batch.weights_BS)
    # Metrics of the routing and thresholds, too.
    assert_all_same(stepped, sgd_step(variables, batch, make_model()))


@pytest.mark.parametrize("lengths", mostly_slow([(16, 2, 16, 4), (16, 0, 9, 0)], [(16, 0, 9, 0)]))
def test_accumulation_of_rows_of_different_lengths(lengths):
    """Micro-batches of few real tokens, or of none, add up to the batch: router losses as well."""
    variables, batch, model = make_variables(), make_batch(lengths), make_model()
    parts = sgd_step(variables, batch, model, accumulation=2)
    assert_descended(variables, parts, plain_gradient(variables, batch, model))
    assert_all_same(parts, sgd_step(variables, batch, model))


def test_packed_documents_do_not_see_each_other():
    """Packed two to a row or one to a row, documents have the same loss (in a dense model)."""
    packed, variables = make_batch(), make_variables(num_experts=0, **ONE)

    def unpack(x_BS):
        halves = (
            h for x, s in zip(x_BS, packed.segments_BS, strict=True) for h in (x[s < 2], x[s > 1])
        )
        return np.stack([np.pad(half, (0, LENGTH - len(half))) for half in halves])

    rows = Batch(*map(unpack, (packed.inputs_BS, packed.targets_BS, packed.weights_BS)))
    model = make_model(num_experts=0, **ONE)
    assert_all_same(sgd_step(variables, packed, model), sgd_step(variables, rows, model))


@pytest.mark.parametrize("accumulation", [slow(1), 2])
def test_a_batch_of_padding_moves_nothing(accumulation):
    variables, batch = make_variables(), make_batch((0,) * ROWS)
    metrics, *moved = sgd_step(variables, batch, make_model(), accumulation=accumulation)
    assert_all_same(moved, (variables.params, variables.router_state))
    assert metrics["loss"] == metrics["objective"] == metrics["gradient_norm"] == 0


def test_accumulation_must_divide_the_rows():
    with pytest.raises(UserError, match="4 rows does not split into 3 micro-batches"):
        sgd_step(make_variables(), make_batch(), make_model(), accumulation=3)


@pytest.mark.parametrize(
    ("remat", "scan"),
    [*(slow(policy, True) for policy in REMAT_POLICIES[1:]), ("none", False), slow("full", False)],
)
def test_remat_and_scanned_layers_change_nothing(remat, scan):
    """Law 2: what is recomputed and how layers are compiled is not seen in any number."""
    names = ("qkv", "moe_out") if remat == "named" else ()
    model = make_model(remat=remat, remat_names=names, scan_layers=scan)
    variables, batch = make_variables(), make_batch()
    expected = sgd_step(variables, batch, make_model())
    assert_all_same(sgd_step(variables, batch, model), expected)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("c", [1.0, slow(2.0)])
@pytest.mark.parametrize("experts", [slow(2), 4])
def test_router_gradient_is_never_zero(experts, c, pool):
    """Law 5: the loss of the language model alone moves every expert's column."""
    shape = ONE | {"num_experts": experts}
    model, variables = make_model(ExpertChoice(c, Pool(pool)), **shape), make_variables(**shape)
    name, batch = "groups/layers/0/ffn/router_kernel", make_batch(packed=False)

    @jax.jit
    def nll(kernel, variables):
        params = variables.params | {name: kernel}
        return plain_objective(params, variables.router_state, batch, model)[1]

    kernel_LDE = jax.grad(nll)(variables.params[name], variables)
    assert kernel_LDE.shape == (1, 16, experts)
    assert np.abs(kernel_LDE).max(axis=1).min() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("pool", mostly_slow(POOLS))
def test_order_of_rows_and_rows_of_padding_change_nothing(pool):
    """A pool is a set of tokens, and padding is neither routed nor counted."""
    variables, model = make_variables(**ONE), make_model(ExpertChoice(2.0, Pool(pool)), **ONE)
    batch = make_batch(lengths=(16, 9, 16, 12), packed=False)
    expected = sgd_step(variables, batch, model)
    for changed in (
        jax.tree.map(lambda a: a[[2, 0, 3, 1]], batch),
        jax.tree.map(lambda a: np.insert(a, [0, 2], 0, axis=0), batch),
    ):
        assert_all_same(sgd_step(variables, changed, model), expected)


def lm_gradient(router, **shape):
    """Returns the gradient of the language model's loss alone on the router's matrix, [D, E].

    And how many (token, expert) pairs each expert has, per real token.
    """
    shape = ONE | {"dispatch": "oracle"} | shape
    model, variables = make_model(router, **shape), make_variables(router, **shape)
    name, batch = "groups/layers/0/ffn/router_kernel", make_batch(packed=False)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(kernel, variables):
        variables = Variables(variables.params | {name: kernel}, variables.router_state)
        output = forward(model, variables, batch, RoutingContext(jax.random.key(0)))
        logits = model.bind(variables).logits(output.hidden_BSD)
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets_BS)
        return jnp.mean(nll), output.routing.metrics["pairs"][0]

    kernel_LDE, pairs_E = gradient(variables.params[name], variables)
    return np.abs(kernel_LDE[0]).max(axis=0), np.asarray(pairs_E)


LEARNED = [name for name in ROUTERS if ROUTERS[name]().is_learned]
CHOICES = [
    TokenChoice(k=k, score=score, normalise=normalise)
    for k in (1, 2, 3, 4)
    for score in ("softmax", "sigmoid")
    for normalise in ((True, False) if k > 1 else (False,))
]


@pytest.mark.parametrize(
    "router",
    [*(ROUTERS[name]() for name in LEARNED), *(slow(router) for router in CHOICES)],
    ids=[*LEARNED, *(f"{r.k}-{r.score}-{'normalised' if r.normalise else 'raw'}" for r in CHOICES)],
)
def test_every_learned_router_gets_a_gradient(router):
    """Law 5, from the loss of the language model alone, for every expert that got a token."""
    gradient_E, pairs_E = lm_gradient(router)
    assert (pairs_E > 0).sum() >= 2
    assert gradient_E[pairs_E > 0].min() > 1e-6


# Everything counts, so that everything has to add up.
ALL_LOSSES = LossConfig(z_loss=1e-2, weights={"router_z": 1e-2, "balance": 0.1}, chunk=24)
# Rows of different lengths.
UNEVEN = (16, 5, 16, 9)
ADDITIVE = {
    "topk": TokenChoice(),
    "topk balanced by sequence": TokenChoice(balance_over="pool"),
    "switch": TokenChoice(k=1, normalise=False),
    "adaptive": Adaptive(threshold=0.2),
    "bias": TokenChoice(score="sigmoid", balance="bias", bias_rate=0.1),
    "quantile": TokenChoice(balance="quantile"),
    "expert_threshold": ExpertThreshold(Pool("sequence"), warmup_steps=0),
    "hash": Hash(),
}
# Two layers, fast to compile.
TWO = {"position": "rotary", "dispatch": "oracle"}


@pytest.mark.slow
@pytest.mark.parametrize("name", mostly_slow(ADDITIVE, ["adaptive"]))
def test_micro_batches_add_up_for_every_router(name):
    """Law 2: gradients, losses, metrics (ratios, too) and the router's state after the step."""
    router = ADDITIVE[name]
    variables, model = make_variables(router, **TWO), make_model(router, **TWO)
    batch = make_batch(UNEVEN)
    whole = sgd_step(variables, batch, model, loss=ALL_LOSSES)
    parts = sgd_step(variables, batch, model, accumulation=2, loss=ALL_LOSSES)
    assert {"router/load", "router/max_violation", "router/dropped_share"} <= set(whole[0])
    assert_all_same(parts, whole)
    # The losses are there, and the state moved.
    assert ("router/balance" in whole[0]) == (isinstance(router, TokenChoice | Adaptive))
    np.testing.assert_allclose(whole[0]["router/load"].sum(-1), 1.0, rtol=1e-5)
    for path, before in variables.router_state.items():
        assert np.abs(whole[2][path] - before).max() > 1e-4


@pytest.mark.slow
def test_balance_over_micro_batches_is_another_loss():
    """Each with its own shares: what `balance_over = 'batch'` makes up for."""
    router = ADDITIVE["topk"]
    variables, model = make_variables(router, **TWO), make_model(router, **TWO)
    batch = make_batch(UNEVEN)
    batch_loss, own_loss = (
        sgd_step(
            variables,
            batch,
            model,
            accumulation=2,
            loss=dataclasses.replace(ALL_LOSSES, balance_over=over),
        )[0]
        for over in ("batch", "micro_batch")
    )
    assert np.abs(own_loss["router/balance"] - batch_loss["router/balance"]).max() > 1e-3
    np.testing.assert_allclose(own_loss["loss"], batch_loss["loss"], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "remat", "scan"),
    [
        slow("topk", "dots", False),
        slow("topk", "named", True),
        slow("switch", "none", False),
        slow("switch", "full", True),
    ],
)
def test_remat_and_scan_change_nothing_for_token_choice(name, remat, scan):
    """Law 2, with jitter: a layer's key does not depend on how the layers are compiled."""
    router = ROUTERS[name]()
    shape = {"position": "rotary"}
    variables, batch = make_variables(router, **shape), make_batch()
    expected = sgd_step(variables, batch, make_model(router, **shape))
    names = ("moe_hidden", "moe_in") if remat == "named" else ()
    model = make_model(router, remat=remat, remat_names=names, scan_layers=scan, **shape)
    assert_all_same(sgd_step(variables, batch, model), expected)


def test_jitter_is_that_of_the_key():
    """It moves the scores of every layer, so that the test before has something to compare."""
    router = TokenChoice(k=1, normalise=False, jitter=0.1)
    model, variables = make_model(router, **TWO), make_variables(router, **TWO)
    entropy = jax.jit(
        lambda context: forward(model, variables, make_batch(), context).routing.metrics["entropy"]
    )
    keys = [RoutingContext(jax.random.key(seed)) for seed in (0, 0, 1)]
    calm, one, again, other = (np.asarray(entropy(key)) for key in (None, *keys))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - calm).min() > 1e-6
    assert np.abs(one - other).min() > 1e-6


@pytest.mark.slow
def test_thor_is_two_passes_and_their_divergence():
    """Zuo et al. 2021, eq. 4 and 5, from two forward passes with the step's keys."""
    router, alpha, shape = Thor(drawn_per="sequence"), 2.0, ONE
    variables, model = make_variables(router, **shape), make_model(router, **shape)
    batch = make_batch(packed=False)
    loss = LossConfig(z_loss=0.0, weights={"consistency": alpha})
    metrics, params, _ = sgd_step(variables, batch, model, loss=loss)
    step_key = jax.random.fold_in(jax.random.key(0), 0)
    weights = batch.weights_BS / batch.weights_BS.sum()

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def objective(params):
        bound = Variables(params, variables.router_state)
        nll, log_p = [], []
        for index in range(2):
            context = RoutingContext(jax.random.fold_in(step_key, index))
            output = forward(model, bound, batch, context)
            log_p.append(jax.nn.log_softmax(model.bind(bound).logits(output.hidden_BSD)))
            chosen = jnp.take_along_axis(log_p[-1], batch.targets_BS[..., None], axis=-1)[..., 0]
            nll.append(-jnp.sum(weights * chosen))
        difference = (jnp.exp(log_p[0]) - jnp.exp(log_p[1])) * (log_p[0] - log_p[1])
        divergence = jnp.sum(weights[..., None] * difference) / 2
        return sum(nll) + alpha * divergence, (nll, divergence)

    (value, (nll, divergence)), gradients = objective(variables.params)
    assert abs(nll[0] - nll[1]) > 1e-3  # The passes draw other experts.
    assert divergence > 1e-2
    np.testing.assert_allclose(metrics["objective"], value, rtol=2e-5)
    np.testing.assert_allclose(metrics["consistency"], divergence, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss"], sum(nll) / 2, rtol=2e-5)
    assert_same(params, {n: variables.params[n] - RATE * g for n, g in gradients.items()})


@pytest.mark.slow
def test_choices_drawn_are_those_of_the_seed_and_the_step():
    """The same step twice gives the same numbers, another seed others."""
    router = RandomExperts(k=2)
    variables, model = make_variables(router, **TWO), make_model(router, **TWO)
    batch = make_batch(packed=False)
    first = sgd_step(variables, batch, model)
    for one, other in zip(first, sgd_step(variables, batch, model), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)
    another = sgd_step(variables, batch, model, seed=1)
    assert abs(first[0]["loss"] - another[0]["loss"]) > 1e-4
    # Layers draw on their own.
    load_LE = np.asarray(first[0]["router/load"])
    assert np.abs(load_LE[0] - load_LE[1]).max() > 1e-3


@pytest.fixture(scope="module")
def training():
    """Returns the step and, of 30 steps on one batch, the metrics and what thresholds do."""
    batch = make_batch(packed=False)
    model = make_model(d_model=32)
    optimizer = adamw(warmup_cosine(0.03, 40, 4), weight_decay=0.0)
    step = make_train_step(model, optimizer, LossConfig(z_loss=0.0))
    statistics = jax.jit(
        lambda v: oracles.mean_kth_score(forward(model, v, batch).routing.statistics)
    )
    history = []
    state = make_state(model, optimizer, seed=0)
    for _ in range(30):
        before = np.asarray(*state.variables.router_state.values())
        kth_score = np.asarray(statistics(state.variables))
        state, metrics = step(state, batch)
        after = np.asarray(*state.variables.router_state.values())
        history.append((jax.device_get(metrics), before, kth_score, after))
    return step, history


def test_a_run_compiles_its_step_once(training):
    """Law 7."""
    step, _ = training
    assert step._cache_size() == 1


def test_a_batch_is_learnt_by_heart(training):
    """The loss starts near that of guessing, ln V and a little, and ends near 0."""
    losses = [metrics["loss"] for metrics, *_ in training[1]]
    assert np.log(VOCABULARY) - 0.2 < losses[0] < np.log(VOCABULARY) + 1.5
    assert losses[-1] < 0.05


def test_learning_rate_metric_is_the_schedule(training):
    """A warm-up of 4 steps from a quarter of 0.03, then the cosine of 36 steps to a tenth."""
    rates = [metrics["learning_rate"] for metrics, *_ in training[1]]
    steps = np.arange(30)
    warmup = 0.0075 + (0.03 - 0.0075) * steps / 4
    cosine = 0.03 * (0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (steps - 4) / 36)))
    np.testing.assert_allclose(rates, np.where(steps < 4, warmup, cosine), rtol=1e-5)


def test_thresholds_follow_the_kth_scores(training):
    """The weight of the old is (1 + t) / (10 + t): 0.1 in step 0, 2/11 in step 1, and so on."""
    history = training[1]
    np.testing.assert_array_equal(history[0][1], np.full((2, 4), 1 / 4, np.float32))
    for step, (_, before, kth_score, after) in enumerate(history):
        weight = (1 + step) / (10 + step)
        expected = weight * before + (1 - weight) * kth_score
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(history[0][3] - history[0][1]).min() > 1e-3


@pytest.mark.slow
def test_options_of_the_tpu_compiler_are_ignored_elsewhere():
    """A CPU does not know them and would refuse."""
    options = {"xla_enable_async_all_gather": "true", "xla_tpu_no_such_option": "true"}
    model = make_model(**ONE)
    step = make_train_step(model, SGD, LOSS, StepOptions(compiler_options=options))
    plain = make_train_step(model, SGD, LOSS)
    batch = make_batch()
    losses = [float(run(make_state(model, SGD, seed=0), batch)[1]["loss"]) for run in (step, plain)]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_masks_of_dropout_are_a_function_of_seed_step_and_micro_batch():
    """The loss of a step is the mean of those of its micro-batches, with the keys of each."""
    model = make_model(dropout=0.3, expert_dropout=0.3, **ONE)
    variables, batch = make_variables(dropout=0.3, expert_dropout=0.3, **ONE), make_batch()
    metrics, _, _ = sgd_step(variables, batch, model, accumulation=2)

    @jax.jit
    def nll(part, key):
        bound, context = Variables(variables.params, variables.router_state), RoutingContext(key)
        output = forward(model, bound, part, context)
        logits = model.bind(bound).logits(output.hidden_BSD)
        nll_BS = optax.softmax_cross_entropy_with_integer_labels(logits, part.targets_BS)
        return jnp.sum(nll_BS * part.weights_BS)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), 0), 2)
    # Micro-batch i has the rows i, i + 2, ...
    parts = [jax.tree.map(lambda a, i=i: a[i::2], batch) for i in (0, 1)]
    sums = [nll(part, jax.random.fold_in(key, 0)) for part, key in zip(parts, keys, strict=True)]
    np.testing.assert_allclose(metrics["loss"], sum(sums) / batch.weights_BS.sum(), rtol=1e-5)
    # Other masks in the other micro-batch, and without dropout.
    swapped = [
        nll(part, jax.random.fold_in(key, 0)) for part, key in zip(parts, keys[::-1], strict=True)
    ]
    assert abs(sum(swapped) - sum(sums)) > 1e-2
