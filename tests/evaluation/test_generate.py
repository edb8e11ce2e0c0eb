"""Generation with a cache equals the full forward pass, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.sampling import SamplingConfig
from moe_jax.models.batch_context import BatchContext
from moe_jax.routers import ROUTERS, get_router
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.training.step import forward

LENGTH = 24


def full_logits(model, variables, tokens_BS):
    """Returns the logits of the whole row at once, routed causally."""

    @jax.jit
    def run(variables):
        decoder = model.causal().bind(variables)
        return decoder.logits(decoder(BatchContext.of_tokens(tokens_BS)).hidden_BSD)

    return np.asarray(run(variables))


def make(kind, position="relative"):
    if kind == "dense":
        return tiny.make(None, num_experts=0, position=position)
    return tiny.make(ExpertChoice(2.0, Pool(kind)), position=position)


@pytest.mark.parametrize("kind", mostly_slow(["sequence", "dense", "position", "batch"], 2))
@pytest.mark.parametrize("position", mostly_slow(["relative", "rotary"]))
def test_cached_steps_equal_the_full_forward_pass(kind, position):
    assert_cached_steps_equal_full_pass(*make(kind, position))


@pytest.mark.parametrize(
    "name", mostly_slow([n for n in ROUTERS if n != "expert_choice"], ["switch", "adaptive"])
)
def test_cached_steps_equal_the_full_forward_pass_for_every_router(name):
    """Of random routers, too: what they draw is a function of the token and its position."""
    shape = {"num_layers": 2, "moe_every": 1, "position": "rotary", "dispatch": "oracle"}
    assert_cached_steps_equal_full_pass(*tiny.make(get_router(name), **shape))


def assert_cached_steps_equal_full_pass(model, variables):
    tokens = tiny.make_batch(2, LENGTH).inputs_BS
    expected = full_logits(model, variables, tokens)
    generator = Generator(model, SamplingConfig(), end=1)

    @jax.jit
    def one(caches, token_B1, start_B):
        hidden, caches = generator.step(variables, caches, token_B1, start_B)
        return model.bind(variables).logits(hidden)[:, 0], caches

    caches = model.bind(variables).make_caches(2, LENGTH)
    for position_ in range(LENGTH):
        start_B = jnp.full((2,), position_, jnp.int32)
        logits, caches = one(caches, tokens[:, position_ : position_ + 1], start_B)
        np.testing.assert_allclose(logits, expected[:, position_], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prompt_length", mostly_slow([5, 0, 31, 32], 0))
def test_greedy_text_is_the_argmax_of_full_forward_passes(prompt_length):
    """No cache at all: the whole row is run anew for each token."""
    model, variables = make("batch")
    prompt = tiny.tokens(1, 40)[0, :prompt_length].tolist()
    new = 6
    generator = Generator(model, SamplingConfig(max_new_tokens=new, temperature=0.0), end=-1)
    written = generator(variables, prompt)
    row = np.zeros((1, 48), np.int32)
    row[0, 1 : prompt_length + 1] = prompt
    expected = []
    for index in range(new):
        at = prompt_length + index
        expected.append(int(full_logits(model, variables, row)[0, at].argmax()))
        row[0, at + 1] = expected[-1]
    assert written == expected


@pytest.mark.slow
@pytest.mark.parametrize("position", mostly_slow(["relative", "rotary"]))
def test_a_bidirectional_prompt_is_read_as_it_was_in_training(position):
    """Greedy text beside the argmax of `forward` on rows whose prefix is the prompt."""
    model, variables = tiny.make(None, num_experts=0, position=position, bidirectional_prefix=True)
    prompt, new = tiny.tokens(1, 9)[0].tolist(), 4
    generator = Generator(model, SamplingConfig(max_new_tokens=new, temperature=0.0), end=-1)
    row = np.zeros((1, 16), np.int32)
    row[0, 1:10] = prompt
    prefix = (np.arange(16) < 10)[None].astype(np.int32)
    bound = model.bind(variables)

    def logits(prefix):
        batch = Batch(row, row, np.ones((1, 16)), prefix_BS=prefix)
        return np.asarray(bound.logits(forward(model, variables, batch).hidden_BSD))

    # The prompt's first token sees its last one.
    assert np.abs(logits(prefix) - logits(prefix * 0))[0, 0].max() > 1e-3
    expected = []
    for at in range(9, 9 + new):
        expected.append(int(logits(prefix)[0, at].argmax()))
        row[0, at + 1] = expected[-1]
    assert generator(variables, prompt) == expected
    with pytest.raises(UserError, match="bidirectional_prefix needs data with inputs"):
        logits(None)


@pytest.mark.slow
def test_text_ends_with_the_document():
    model, variables = make("batch")
    generator = Generator(model, SamplingConfig(max_new_tokens=20, temperature=0.0), end=-1)
    written = generator(variables, [3, 4])
    end = written[4]
    stopped = Generator(model, SamplingConfig(max_new_tokens=20, temperature=0.0), end=end)
    assert stopped(variables, [3, 4]) == written[: written.index(end)]


@pytest.mark.slow
def test_the_same_seed_writes_the_same_and_another_seed_something_else():
    model, variables = make("batch")
    generator = Generator(model, SamplingConfig(max_new_tokens=20, temperature=1.0), end=-1)
    first, again, other = (generator(variables, [5], seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other
