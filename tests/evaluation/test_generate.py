"""Generation with a cache equals the full forward pass, token by token."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from tiers import mostly_slow, slow

from moe_jax.data.batch import Batch
from moe_jax.errors import UserError
from moe_jax.evaluation.generate import Generator
from moe_jax.evaluation.sampling import SamplingConfig, sample_tokens
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.decoding import DecodingModel
from moe_jax.models.functional import LanguageModel
from moe_jax.routers import ROUTERS, get_router
from moe_jax.routers.expert_choice import ExpertChoice
from moe_jax.routing.pools import Pool
from moe_jax.sharding.mesh import MeshConfig
from moe_jax.sharding.partition import make_partition
from moe_jax.training.step import forward

LENGTH = 24


def full_logits(model, variables, tokens_BS):
    """Returns the logits of the whole row at once, routed causally."""
    return np.asarray(_full_logits(model, variables, jnp.asarray(tokens_BS)))


@functools.partial(jax.jit, static_argnums=0)
def _full_logits(model, variables, tokens_BS):
    decoder = model.causal().bind(variables)
    return decoder.logits(decoder(BatchContext.of_tokens(tokens_BS)).hidden_BSD)


def make(kind, position="relative", **changes):
    if kind == "dense":
        return tiny.make(None, num_experts=0, position=position, **changes)
    return tiny.make(ExpertChoice(2.0, Pool(kind)), position=position, **changes)


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
    decoding = DecodingModel(model)
    weights = decoding.prepare(variables)

    @jax.jit
    def one(weights, caches, token_B1, position):
        batch = BatchContext(token_B1, jnp.full((2, 1), position), jnp.ones((2, 1), bool))
        hidden, caches = decoding.step(weights, caches, batch)
        return decoding.logits(weights, hidden)[:, 0], caches

    caches = model.bind(variables).make_caches(2, LENGTH)
    for position in range(LENGTH):
        token_B1 = tokens[:, position : position + 1]
        logits, caches = one(weights, caches, token_B1, position)
        np.testing.assert_allclose(logits, expected[:, position], rtol=1e-4, atol=1e-4)


def drawn(logits_V, config, seed, position):
    """Returns the token that a row with this seed samples at a position."""
    key = jax.random.fold_in(jax.random.key(seed), position)
    return int(sample_tokens(jnp.asarray(logits_V)[None], key[None], config)[0])


def without_cache(model, variables, prompt, config, seed):
    """Generates by a full forward pass over the row for every token."""
    row = np.zeros((1, 48), np.int32)
    row[0, 1 : len(prompt) + 1] = prompt
    found = []
    for at in range(len(prompt), len(prompt) + config.max_new_tokens):
        found.append(drawn(full_logits(model, variables, row)[0, at], config, seed, at + 1))
        row[0, at + 1] = found[-1]
    return found


SAMPLED = {"temperature": 1.0, "top_p": 0.9}


@pytest.mark.parametrize("name", mostly_slow(ROUTERS, ["expert_choice"]))
@pytest.mark.parametrize("settings", mostly_slow([SAMPLED, {"temperature": 0.0}]))
def test_text_of_every_router_is_that_without_a_cache(name, settings):
    """Two rows of a batch, with the same keys."""
    shape = {"num_layers": 2, "moe_every": 1, "position": "rotary"}
    model, variables = tiny.make(get_router(name), **shape)
    config = SamplingConfig(max_new_tokens=5, **settings)
    prompts, seeds = [[3, 9, 4], tiny.tokens(1, 9)[0].tolist()], [7, 8]
    found = Generator(model, config, end=-1).batch(variables, prompts, seeds)
    expected = zip(prompts, seeds, strict=True)
    assert found == [without_cache(model, variables, p, config, s) for p, s in expected]


def ragged(*lengths):
    return [tiny.tokens(1, n, seed=n)[0].tolist() for n in lengths]


# Of one padded length, and of several.
RAGGED, LONG = ragged(5, 31, 1, 14, 0, 22, 2, 9), ragged(5, 31, 1, 14, 0, 40, 2, 64)


@pytest.mark.parametrize(
    ("kind", "changes", "prompts"),
    [
        ("batch", {"scan_layers": False}, RAGGED),
        slow("batch", {"position": "rotary"}, LONG),
        slow("dense", {"scan_layers": False}, LONG),
        slow("dense", {"bidirectional_prefix": True}, LONG),
    ],
)
def test_a_batch_of_ragged_prompts_gives_each_row_what_it_gives_alone(kind, changes, prompts):
    model, variables = make(kind, **changes)
    config = SamplingConfig(max_new_tokens=6, temperature=1.0)
    generator = Generator(model, config, end=-1)
    seeds = list(range(8))
    together = generator.batch(variables, prompts, seeds)
    alone = [generator(variables, p, s) for p, s in zip(prompts, seeds, strict=True)]
    assert together == alone
    assert len({tuple(row) for row in together}) == 8
    # Other neighbours, another place, and rows that pad the batch to 8.
    assert generator.batch(variables, prompts[6:1:-1], seeds[6:1:-1]) == alone[6:1:-1]


def test_decoding_ends_with_the_last_row():
    """The number of steps is counted by the state, not by a clock."""
    model, variables = make("batch")
    generator = Generator(model, SamplingConfig(max_new_tokens=20, temperature=0.0), end=-1)
    prompts = [[3, 4], [9], [12, 5, 7]]
    whole = generator.batch(variables, prompts)
    end = whole[1][3]
    until = [row.index(end) if end in row else 20 for row in whole]
    ending = Generator(model, SamplingConfig(max_new_tokens=20, temperature=0.0), end=end)
    texts = ending.texts(variables, prompts)
    assert [text.tokens for text in texts] == [row[:n] for row, n in zip(whole, until, strict=True)]
    assert [text.ended for text in texts] == [n < 20 for n in until]
    state = ending.decode(variables, ending.prefill(variables, [prompts[1]]))
    # One token more than the text: the end token.
    assert int(state.count) == until[1] + 1 < 20


def joined(pieces):
    return list(itertools.chain.from_iterable(pieces))


def test_streamed_tokens_are_those_of_the_whole_text():
    model, variables = make("batch")
    generator = Generator(model, SamplingConfig(max_new_tokens=11, temperature=1.0), end=-1)
    whole = generator(variables, [5, 6], seed=3)
    pieces = list(generator.stream(variables, [5, 6], seed=3))
    assert [len(piece) for piece in pieces] == [1, 4, 4, 2]
    assert joined(pieces) == whole
    ending = Generator(model, SamplingConfig(max_new_tokens=11, temperature=1.0), end=whole[6])
    assert joined(ending.stream(variables, [5, 6], seed=3)) == whole[: whole.index(whole[6])]


@pytest.mark.multidevice
@pytest.mark.slow
@pytest.mark.parametrize("sizes", [{"data": 4, "tensor": 2}, {"fsdp": 2, "expert": 4}])
@pytest.mark.parametrize("kind", ["batch", "dense"])
def test_a_mesh_writes_what_one_device_writes(all_devices, sizes, kind):
    """Three rows do not divide over the mesh: they are padded."""
    model, variables = make(kind)
    config = SamplingConfig(max_new_tokens=6, temperature=1.0)
    expected = Generator(model, config, end=-1).batch(variables, RAGGED[:3], [1, 2, 3])
    partition = make_partition(MeshConfig(**sizes), jax.devices()[:8])
    sharded = LanguageModel(model.config, model.router, partition)
    placed = jax.device_put(variables, sharded.shardings())
    generator = Generator(sharded, config, end=-1)
    assert generator.batch(placed, RAGGED[:3], [1, 2, 3]) == expected
    assert joined(generator.stream(placed, RAGGED[0], 1)) == expected[0]


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
