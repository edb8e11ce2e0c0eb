"""Attention and positions against numpy written from the definitions."""

import re

import jax
import numpy as np
import pytest
import tiny
from flax import nnx
from tiers import mostly_slow

import moe_jax.models.attention as attention_module
from moe_jax.models.attention import Attention, block_length
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.position_embeddings import RelativeBias, causal_mask, distance_buckets, rotate

LENGTH = 12


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def numpy_attention(attention, x, bias_of_distance, allowed, rotation=None):
    """Attention of one row by loops over heads and queries."""
    config = attention.config
    heads, width = config.num_heads, config.head_dim
    q, k, v = (
        (x @ np.asarray(w[...])).reshape(len(x), heads, width)
        for w in (attention.query, attention.key, attention.value)
    )
    if rotation is not None:
        q, k = rotation(q), rotation(k)
    context = np.zeros_like(q)
    for head in range(heads):
        for query in range(len(x)):
            keys = [t for t in range(len(x)) if allowed(query, t)]
            logits = np.array([q[query, head] @ k[t, head] for t in keys]) / np.sqrt(width)
            logits += [bias_of_distance(max(query - t, 0), head) for t in keys]
            context[query, head] = softmax(logits) @ v[keys, head]
    return context.reshape(len(x), -1) @ np.asarray(attention.output[...])


def make_attention(**changes):
    config = tiny.config(**changes)
    return Attention(config, nnx.Rngs(params=jax.random.key(1)))


@pytest.fixture(params=[1, 4], ids=["whole", "blocks"])
def blocks(request, monkeypatch):
    """Attends all queries of a row at once, or a quarter after the other."""
    monkeypatch.setattr(attention_module, "SHORTEST_BLOCK", LENGTH // request.param)
    assert block_length(LENGTH) == LENGTH // request.param
    return request.param


def context_of(positions, segments=None, prefix=None):
    """Returns rows without padding; attention does not look at the tokens."""
    tokens, mask = np.zeros_like(positions), np.ones(positions.shape, bool)
    return BatchContext(tokens, positions, mask, segments, prefix)


def test_rows_attend_in_quarters_of_256_or_more():
    lengths = {16: 16, 256: 256, 384: 384, 512: 256, 768: 256, 1023: 1023, 1024: 256, 8192: 2048}
    assert {length: block_length(length) for length in lengths} == lengths


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("packed", mostly_slow([True, False]))
def test_relative_attention_is_the_definition(packed, prefixed, blocks):
    attention = make_attention()
    x = np.random.default_rng(0).normal(size=(2, LENGTH, 32)).astype(np.float32)
    segments = np.array([[1] * 5 + [2] * 7, [1] * 9 + [2] * 2 + [0]]) if packed else None
    positions = np.broadcast_to(np.arange(LENGTH), (2, LENGTH))
    prefix = np.array([[1, 1, 1, 0, 0, 1, 1] + [0] * 5, [1] * 4 + [0] * 8]) if prefixed else None
    y, _ = attention(x, context_of(positions, segments, prefix))
    table = np.asarray(attention.bias.table[...])
    buckets = distance_buckets(8, 16)

    def allowed(row, query, key):
        together = segments is None or segments[row, query] == segments[row, key]
        both = prefixed and prefix[row, query] and prefix[row, key]
        return together and (key <= query or both)

    for row in range(2):
        expected = numpy_attention(
            attention,
            x[row],
            lambda distance, head: table[buckets[min(distance, 16)], head],
            lambda q, t, row=row: allowed(row, q, t),
        )
        np.testing.assert_allclose(y[row], expected, rtol=2e-5, atol=2e-6)


def test_rotary_attention_is_the_definition(blocks):
    attention = make_attention(position="rotary")
    x = np.random.default_rng(0).normal(size=(1, LENGTH, 32)).astype(np.float32)
    positions = np.arange(LENGTH)[None]

    def rotation(q):
        """Multiplies the pair (i, i + K/2), seen as a complex number, by exp(i angle)."""
        half = q.shape[-1] // 2
        angle = np.arange(LENGTH)[:, None, None] * 10000.0 ** (-np.arange(half) / half)
        pair = (q[..., :half] + 1j * q[..., half:]) * np.exp(1j * angle)
        return np.concatenate([pair.real, pair.imag], -1)

    y, _ = attention(x, context_of(positions))
    expected = numpy_attention(
        attention, x[0], lambda *_: 0.0, lambda q, t: t <= q, rotation=rotation
    )
    np.testing.assert_allclose(y[0], expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("packed", mostly_slow([True, False]))
@pytest.mark.parametrize("position", mostly_slow(["rotary", "relative"]))
def test_blocks_compute_what_a_mask_would_not_hide(position, packed, monkeypatch):
    """Same values and gradients as of the whole square, of which 10 parts in 16 are left."""
    attention = make_attention(position=position)
    graph, state = nnx.split(attention)
    x = np.random.default_rng(1).normal(size=(2, LENGTH, 32)).astype(np.float32)
    segments = np.array([[1] * 4 + [2] * 8, [1] * 7 + [2] * 3 + [0] * 2]) if packed else None
    batch = context_of(np.broadcast_to(np.arange(LENGTH), (2, LENGTH)), segments)

    def loss(state, x):
        return (nnx.merge(graph, state)(x, batch)[0] ** 2).sum()

    found, squares = [], []
    for shortest in (LENGTH, LENGTH // 4):
        monkeypatch.setattr(attention_module, "SHORTEST_BLOCK", shortest)
        found.append(jax.value_and_grad(lambda *a: loss(*a), argnums=(0, 1))(state, x))
        text = str(jax.make_jaxpr(lambda *a: loss(*a))(state, x))
        shapes = re.findall(r"f32\[2,\d+,(\d+),(\d+)\] = exp ", text)
        squares.append([int(queries) * int(keys) for queries, keys in shapes])
    assert squares == [[LENGTH**2], [LENGTH**2 * i // 16 for i in (1, 2, 3, 4)]]
    for whole, blocks in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(blocks, whole, rtol=2e-5, atol=2e-5)


def test_rotary_depends_on_the_distance_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 16))
    products = [
        float(np.sum(rotate(q, np.array([[p + 3]])) * rotate(k, np.array([[p]]))))
        for p in (0, 5, 40)
    ]
    np.testing.assert_allclose(products, products[0], rtol=1e-4)


def test_buckets_of_t5():
    """Boundaries of T5's 32 buckets up to 128: exact to 15, then 16 steps of 8^(1/16)."""
    buckets = distance_buckets(32, 128)
    np.testing.assert_array_equal(buckets[:16], np.arange(16))
    # First distance of bucket 16 + i is the least d with 16 * 8^(i/16) <= d.
    first = [int(np.argmax(buckets == 16 + i)) for i in range(16)]
    np.testing.assert_array_equal(
        first, [int(np.ceil(16 * 8 ** (i / 16) - 1e-9)) for i in range(16)]
    )
    assert buckets[128] == 31
    assert np.all(np.diff(buckets) >= 0)


def test_bias_of_rows_equals_bias_at_distances():
    bias = RelativeBias(tiny.CONFIG, nnx.Rngs(params=jax.random.key(0)))
    rows = np.asarray(bias.causal(bias.table[...], LENGTH, LENGTH))
    distance = np.arange(LENGTH)[:, None] - np.arange(LENGTH)
    expected = np.moveaxis(np.asarray(bias.at(np.maximum(distance, 0))), -1, 0)
    np.testing.assert_allclose(rows[:, distance >= 0], expected[:, distance >= 0], rtol=1e-6)
    assert np.all(rows[:, distance < 0] < -1e29)


@pytest.mark.parametrize("queries", [1, 3, LENGTH - 1])
def test_bias_of_the_last_queries_is_that_of_any(queries):
    bias = RelativeBias(tiny.CONFIG, nnx.Rngs(params=jax.random.key(0)))
    rows = np.asarray(bias.causal(bias.table[...], LENGTH, LENGTH))
    last = np.asarray(bias.causal(bias.table[...], queries, LENGTH))
    for end in range(queries, LENGTH + 1):
        np.testing.assert_array_equal(last[..., LENGTH - end :], rows[:, end - queries : end, :end])
    mask = causal_mask(queries, LENGTH)
    np.testing.assert_array_equal(mask, causal_mask(LENGTH, LENGTH)[:, -queries:])
