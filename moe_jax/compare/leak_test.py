"""The random-token test: does training with a router let the model read the future?

A very small model with the router is trained on uniform random tokens, of which a causal model can
predict nothing: its expected loss on tokens that it has not seen is at least ln V, at every step.
Each batch is drawn anew, so that the training loss is such a loss. If its mean over the last steps
is below ln V by more than the error allows, the router tells the model about later tokens.

The test can find a leak and not exclude one: a leak that a small model in a few hundred steps does
not learn to use stays unseen, and large pools hide more than the small ones of the test.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.compare.records import LeakTest
from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.models.config import ModelConfig
from moe_jax.models.functional import LanguageModel
from moe_jax.routing.router import Router
from moe_jax.training.optimizers import adamw
from moe_jax.training.state import make_state
from moe_jax.training.step import LossConfig, StepOptions, make_train_step

# Tokens 1 to V; row length and rows of a batch.
VOCABULARY, LENGTH, ROWS = 4, 8, 64
# Experts, but at least twice as many as a token has.
_EXPERTS = 4
# Standard errors below ln V at which a router is said to leak: 1 in 30,000 for a causal one.
THRESHOLD = 4.0
# The share of the steps over which the loss is averaged: the last ones.
_LAST_SHARE = 0.4
# Warm-ups are cut to this share of the steps, so that the routing after them is what is tested.
_WARMUP_SHARE = 0.1

MODEL = ModelConfig(
    vocab_size=VOCABULARY + 1,
    num_layers=2,
    d_model=32,
    num_heads=2,
    head_dim=16,
    d_ff=48,
    num_experts=_EXPERTS,
    moe_every=1,
    feed_forward="gelu",
    position="rotary",
    scan_layers=False,
    dispatch="oracle",
)


def run_leak_test(router: Router, steps: int, seed: int = 0, arm: str = "") -> LeakTest:
    """Trains a very small model with a router on random tokens.

    Args:
        router: the router, as in training. Its pool has the rows of the test's batch of 64 rows of
            8 tokens; a warm-up takes at most a tenth of the steps.
        steps: number of training steps.
        seed: seed of the initial parameters and of the tokens.
        arm: name of the arm, for the record.

    Raises:
        UserError: if the router cannot work with so small a model.
    """
    tested = small_router(router, steps)
    try:
        tested.check(ROWS, LENGTH, number_of_experts(tested))
    except UserError as error:
        raise UserError(f"the random-token test of {router.name}: {error}") from None
    losses = np.asarray(_losses(tested, steps, seed), np.float64)
    last = losses[-max(int(_LAST_SHARE * steps), 2) :]
    floor, loss = math.log(VOCABULARY), float(last.mean())
    deviation = (loss - floor) / max(float(last.std(ddof=1)) / math.sqrt(len(last)), 1e-12)
    return LeakTest(
        arm=arm,
        router=describe(router),
        steps=steps,
        loss=loss,
        floor=floor,
        deviation=deviation,
        leaks=deviation < -THRESHOLD,
    )


def describe(router: Router) -> str:
    """Returns the name of a router with its kind of pool."""
    return f"{router.name} ({router.pool.kind} pool)"


def number_of_experts(router: Router) -> int:
    """Returns the number of experts of the test's model."""
    return max(_EXPERTS, math.ceil(2 * router.experts_per_token))


def small_router(router: Router, steps: int) -> Router:
    """Returns a router with what depends on the size of the model or the length of training cut."""
    changes: dict[str, object] = {}
    pool = router.pool
    if pool.rows and ROWS % pool.rows:
        changes["pool"] = dataclasses.replace(pool, rows=0)
    warmup = getattr(router, "warmup_steps", 0)
    if warmup > _WARMUP_SHARE * steps:
        changes["warmup_steps"] = int(_WARMUP_SHARE * steps)
    return dataclasses.replace(router, **changes) if changes else router  # type: ignore[type-var]


def random_batch(seed: int, step: int) -> Batch:
    """Returns uniform random tokens from 1 to V: nothing before a token tells anything about it."""
    random = np.random.default_rng((seed % 2**32, step))
    targets = random.integers(1, VOCABULARY + 1, (ROWS, LENGTH)).astype(np.int32)
    inputs = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    ones = np.ones(targets.shape, np.float32)
    return Batch(jnp.asarray(inputs), jnp.asarray(targets), ones)


def _losses(router: Router, steps: int, seed: int) -> list[float]:
    """Returns the loss of every step on its batch, before the update."""
    config = dataclasses.replace(MODEL, num_experts=number_of_experts(router))
    model = LanguageModel(config, router)
    optimizer = adamw(lambda step: 3e-3, weight_decay=0.0)
    state = make_state(model, optimizer, seed)
    options = StepOptions(seed=seed)
    step = make_train_step(model, optimizer, LossConfig(z_loss=0.0), options)
    losses = []
    for number in range(steps):
        state, metrics = step(state, random_batch(seed, number))
        losses.append(metrics["loss"])
    return [float(loss) for loss in jax.device_get(losses)]
