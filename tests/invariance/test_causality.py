"""Law 3: a model that says it is causal is, and the one that reads the future is caught.

Structure: everything after position t is changed in all rows, and half of the rows end there;
logits up to t must not move. Every
registered router is tried with every pool, with a random key as in training.
Training: on uniform random tokens no causal model can go below ln V.
"""

import dataclasses

import compiling
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.data.batch import Batch
from moe_jax.evaluation.perplexity import Evaluator
from moe_jax.models.functional import LanguageModel
from moe_jax.models.layer_routing import RoutingContext
from moe_jax.routers import ROUTERS as REGISTERED
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routers.expert_threshold import ExpertThreshold
from moe_jax.routers.token_choice import TokenChoice
from moe_jax.routing.pools import KINDS, Pool
from moe_jax.training.optimizers import adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, forward, make_train_step

BATCH, LENGTH = 8, 16
# Sizes of matrix products depend on the load, and rounding on them: measured up to 3e-6. A leak
# moves logits by 0.1.
ROUNDING = 1e-5
LEAK = 0.01
ROUTERS = {
    "expert_choice_sequence": ExpertChoice(2.0, Pool("sequence")),
    "expert_choice_batch": ExpertChoice(2.0, Pool("batch")),
    "expert_choice_batch_of_2_rows": ExpertChoice(2.0, Pool("batch", rows=2)),
    "expert_choice_position": ExpertChoice(2.0, Pool("position")),
    "expert_threshold": ExpertThreshold(Pool("sequence"), warmup_steps=0),
}


def change_after(batch: Batch, position: int, seed: int) -> Batch:
    """Returns the batch with all after `position` drawn anew in every row, and odd rows ended."""
    other = tiny.make_batch(BATCH, LENGTH, seed)
    after = np.arange(LENGTH) > position
    inputs = np.where(after, other.inputs_BS, batch.inputs_BS)
    ended = after & (np.arange(BATCH) % 2 == 1)[:, None]
    # Padding is what has no target.
    return dataclasses.replace(
        batch, inputs_BS=inputs, targets_BS=np.where(ended, 0, batch.targets_BS)
    )


def largest_move(
    model: LanguageModel, variables: object, context: RoutingContext | None = None
) -> float:
    """Returns the largest change of a logit at or before the position, over many positions."""

    @jax.jit
    def logits(batch: Batch) -> jax.Array:
        output = forward(model, variables, batch, context)
        return model.bind(variables).logits(output.hidden_BSD)

    batch = tiny.make_batch(BATCH, LENGTH)
    before = logits(batch)
    moves = [
        float(jnp.abs((logits(change_after(batch, t, 10 + t)) - before)[:, : t + 1]).max())
        for t in range(1, LENGTH - 1)
    ]
    return max(moves)


@pytest.mark.parametrize(
    "name",
    mostly_slow(ROUTERS, ["expert_choice_sequence", "expert_choice_position", "expert_threshold"]),
)
def test_logits_move_only_if_the_router_says_it_is_not_causal(name):
    router = ROUTERS[name]
    model, variables = tiny.make(router)
    move = largest_move(model, variables)
    if router.is_causal:
        assert move < ROUNDING
    else:
        assert move > 0.1


# Fast to compile; the oracle's sums do not depend on the load.
SMALL = {"num_layers": 2, "moe_every": 1, "position": "rotary", "dispatch": "oracle"}


def trained_move(router: object, **shape: object) -> float:
    """Returns the largest move with a random key, as in training."""
    model, variables = tiny.make(router, **SMALL | shape)
    return largest_move(model, variables, RoutingContext(jax.random.key(1)))


def with_pool(name: str, kind: str) -> object:
    return dataclasses.replace(REGISTERED[name](), pool=Pool(kind))


@pytest.mark.parametrize("kind", mostly_slow(KINDS, ["batch"]))
@pytest.mark.parametrize("name", REGISTERED)
def test_every_router_is_what_it_says(name, kind):
    """With its registered settings: it leaks if and only if it says that it is not causal."""
    router = with_pool(name, kind)
    move = trained_move(router)
    assert move < ROUNDING if router.is_causal else move > LEAK


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        ("left_to_right", "sequence"),
        ("left_to_right", "batch"),
        ("choices_first", "batch"),
        ("priority", "sequence"),
        ("priority", "position"),
    ],
)
def test_orders_of_slots_are_what_they_say(order, kind):
    """Where slots are short: only `left_to_right`, or a pool of one position, keeps causality."""
    router = TokenChoice(capacity_factor=0.5, order=order, pool=Pool(kind))
    assert router.is_causal == (order == "left_to_right" or kind == "position")
    move = trained_move(router)
    assert move < ROUNDING if router.is_causal else move > LEAK


@dataclasses.dataclass(frozen=True)
class Liar(TokenChoice):
    """Says that it is causal in any case."""

    is_causal = True


def test_a_router_that_lies_is_caught():
    liar = Liar(capacity_factor=0.5, order="choices_first", pool=Pool("batch"))
    assert liar.is_causal
    assert trained_move(liar) > LEAK


@pytest.mark.parametrize(
    ("name", "dispatch"),
    [("topk", "gather"), ("topk", "grouped"), ("switch", "gather"), ("switch", "grouped")],
)
def test_transports_do_not_leak(name, dispatch):
    """The load, which does depend on later tokens, moves rounding only."""
    assert trained_move(with_pool(name, "batch"), dispatch=dispatch) < ROUNDING


@pytest.mark.parametrize("name", mostly_slow(REGISTERED, ["expert_choice", "switch"]))
def test_what_evaluation_decodes_with_is_causal_and_blind(name):
    """For every router in pools of the batch: not even other rows at earlier positions matter."""
    causal = with_pool(name, "batch").causal()
    assert causal.is_causal
    model, variables = tiny.make(causal, **SMALL)

    @jax.jit
    def logits(inputs_BS: jax.Array) -> jax.Array:
        batch = dataclasses.replace(tiny.make_batch(BATCH, LENGTH), inputs_BS=inputs_BS)
        output = forward(model, variables, batch)
        return model.bind(variables).logits(output.hidden_BSD)

    inputs = tiny.make_batch(BATCH, LENGTH).inputs_BS
    other = tiny.make_batch(BATCH, LENGTH, seed=9).inputs_BS
    before = logits(inputs)
    for row, position in ((0, 3), (3, 8), (7, 14)):
        mine = (np.arange(BATCH)[:, None] == row) & (np.arange(LENGTH) <= position)
        move = np.abs(logits(np.where(mine, inputs, other)) - before)
        assert move[mine].max() < ROUNDING
        assert move[~mine].max() > LEAK


VOCAB, RANDOM_LENGTH, RANDOM_BATCH, STEPS = 4, 8, 64, 300


def random_batch(seed: int) -> Batch:
    """Uniform random tokens: nothing before a token tells anything about it."""
    targets = np.random.default_rng(seed).integers(1, VOCAB + 1, (RANDOM_BATCH, RANDOM_LENGTH))
    inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    ones = np.ones(targets.shape, np.float32)
    return Batch(inputs.astype(np.int32), targets.astype(np.int32), ones)


def losses_on_random_tokens(router: object) -> tuple[float, float]:
    """Trains on random tokens; returns fresh loss routed as trained, and causally."""
    config = tiny.config(
        vocab_size=VOCAB + 1, num_layers=3, moe_every=1, scan_layers=False, dispatch="oracle"
    )
    model = LanguageModel(config, router)
    optimizer = adamw(lambda step: 3e-3, weight_decay=0.0)
    state = make_state(model, optimizer, 0)
    step = make_train_step(model, optimizer, LossConfig(z_loss=0.0))
    with compiling.optimised():
        for seed in range(STEPS):
            state, _ = step(state, random_batch(seed))
    fresh = [random_batch(10_000 + seed) for seed in range(20)]
    result = Evaluator(model, fresh, np.ones(VOCAB + 1, np.int32))(state.variables)
    return result.loss, result.causal_loss


# Standard error of the mean loss over the 10,240 fresh targets: a model at the floor has a
# spread of some hundredths of a nat per token.
TOLERANCE = 0.002


@pytest.mark.slow
def test_small_pools_of_a_sequence_learn_to_read_the_future():
    """The leak is real: routed as trained, the loss falls below what causality allows."""
    loss, causal_loss = losses_on_random_tokens(ROUTERS["expert_choice_sequence"])
    assert loss < np.log(VOCAB) - 0.05
    assert causal_loss > np.log(VOCAB) - TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["expert_choice_position", "expert_threshold"])
def test_causal_routers_stay_above_ln_v_on_random_tokens(name):
    loss, causal_loss = losses_on_random_tokens(ROUTERS[name])
    assert loss > np.log(VOCAB) - TOLERANCE
    assert causal_loss > np.log(VOCAB) - TOLERANCE
    # And it has learned what there is to learn: that tokens are uniform.
    assert loss < np.log(VOCAB) + 0.05
