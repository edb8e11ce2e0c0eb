"""Attention in tiles, interpreted: against numpy, and against attention by the compiler."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from tiers import slow
from tpu_compiler import needed, run_child

from moe_jax.models.attention import Attention
from moe_jax.models.batch_context import BatchContext

HEADS, WIDTH, BUCKETS = 2, 16, 32


@dataclasses.dataclass(frozen=True)
class Case:
    """A batch for one attention layer.

    Attributes:
        batch: number of rows.
        length: number of positions; tiles have 128, 256 or 512.
        position: `relative` or `rotary`.
        segments: the rows have several documents.
        prefix: the first part of a row sees itself in both directions.
    """

    batch: int
    length: int
    position: str = "relative"
    segments: bool = False
    prefix: bool = False

    def context(self) -> BatchContext:
        random, shape = np.random.default_rng(1), (self.batch, self.length)
        positions = jnp.broadcast_to(jnp.arange(self.length), shape)
        segments = np.sort(random.integers(1, 4, shape), axis=1)
        ends = random.integers(self.length // 3, self.length, (self.batch, 1))
        return BatchContext(
            tokens_BS=positions,
            positions_BS=positions,
            mask_BS=jnp.ones(shape, bool),
            segments_BS=jnp.asarray(segments) if self.segments else None,
            prefix_BS=jnp.asarray(np.arange(self.length) < ends) if self.prefix else None,
        )

    def layer(self, attention: str) -> Attention:
        config = tiny.config(
            attention=attention,
            position=self.position,
            num_heads=HEADS,
            head_dim=WIDTH,
            relative_buckets=BUCKETS,
            relative_max_distance=128,
        )
        return Attention(config, nnx.Rngs(0))


# One tile; tiles of 128, with padding; tiles of 512 beside each other and further away.
CASES = [
    Case(2, 100),
    Case(1, 300, segments=True, prefix=True),
    slow(Case(1, 300, "rotary", segments=True)),
    slow(Case(1, 300, "rotary", prefix=True)),
    slow(Case(2, 384, segments=True)),
    slow(Case(2, 384, prefix=True)),
    slow(Case(1, 640, segments=True, prefix=True)),
    slow(Case(1, 1100)),
    slow(Case(1, 1536, segments=True, prefix=True)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_all_gradients_equal_those_of_plain_attention(case):
    """To 2e-5 of the largest, the table's gradient included."""
    random = np.random.default_rng(0)
    shape = (case.batch, case.length, HEADS, WIDTH)
    q, k, v, weight = (jnp.asarray(random.normal(size=shape), jnp.float32) for _ in range(4))
    table = jnp.asarray(random.normal(size=(BUCKETS, HEADS)), jnp.float32)
    table = table if case.position == "relative" else None
    context = case.context()

    def outputs(attend):
        def loss(q, k, v, table):
            y = attend((q, k, v), context, table)
            return (weight * y).sum(), y

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2, 3), has_aux=True))(q, k, v, table)

    kernel = case.layer("kernel")
    (_, y), gradients = outputs(lambda *inputs: kernel._by_kernel(*inputs, interpret=True))
    (_, y_plain), gradients_plain = outputs(case.layer("plain")._by_blocks)
    for actual, expected in zip(
        jax.tree.leaves((y, gradients)), jax.tree.leaves((y_plain, gradients_plain)), strict=True
    ):
        largest = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * largest)
    assert len(jax.tree.leaves(gradients)) == (3 if table is None else 4)


def softmax_attention(q_SK, k_SK, v_SK, logits_added_SS):
    """Returns attention of one head in float64."""
    logits_SS = q_SK @ k_SK.T / np.sqrt(q_SK.shape[1]) + logits_added_SS
    weights_SS = np.exp(logits_SS - logits_SS.max(1, keepdims=True))
    return weights_SS / weights_SS.sum(1, keepdims=True) @ v_SK


def t5_bucket(distance):
    """Returns the bucket of a distance to an earlier position, with 32 buckets up to 128."""
    if distance < 16:
        return distance
    return min(16 + int(np.log(distance / 16) / np.log(128 / 16) * 16), 31)


def test_it_equals_the_formula():
    """Against numpy in float64, position by position: bias, documents and prefix."""
    case = Case(1, 300, segments=True, prefix=True)
    random, context = np.random.default_rng(0), case.context()
    q, k, v = (random.normal(size=(1, 300, HEADS, WIDTH)) for _ in range(3))
    table = random.normal(size=(BUCKETS, HEADS))
    segments, prefix = np.asarray(context.segments_BS)[0], np.asarray(context.prefix_BS)[0]
    added = np.full((HEADS, 300, 300), -np.inf)
    for query in range(300):
        for key in range(300):
            seen = key <= query or (prefix[query] and prefix[key])
            if seen and segments[query] == segments[key]:
                added[:, query, key] = table[t5_bucket(max(query - key, 0))]
    inputs = (tuple(jnp.asarray(a, jnp.float32) for a in (q, k, v)), context)
    y = case.layer("kernel")._by_kernel(*inputs, jnp.asarray(table, jnp.float32), interpret=True)
    for head in range(HEADS):
        expected = softmax_attention(q[0, :, head], k[0, :, head], v[0, :, head], added[head])
        np.testing.assert_allclose(y[0, :, head], expected, atol=2e-5)


def test_later_positions_reach_no_output():
    """Law 3, at the borders of tiles of 128 and inside them: not a bit changes."""
    case, random = Case(1, 300, segments=True), np.random.default_rng(0)
    layer, context = case.layer("kernel"), case.context()
    table = jnp.asarray(random.normal(size=(BUCKETS, HEADS)), jnp.float32)
    attend = jax.jit(lambda qkv: layer._by_kernel(qkv, context, table, interpret=True))

    def arrays():
        shape = (1, 300, HEADS, WIDTH)
        return tuple(random.normal(size=shape).astype("f") for _ in range(3))

    before, others = arrays(), arrays()
    y = attend(before)
    for last in (0, 126, 127, 128, 200, 255, 298):
        kept = (np.arange(300) <= last)[:, None, None]
        changed = attend(tuple(np.where(kept, a, b) for a, b in zip(before, others, strict=True)))
        np.testing.assert_array_equal(changed[:, : last + 1], y[:, : last + 1])
        assert (changed[:, last + 1 :] != y[:, last + 1 :]).any()


def test_bfloat16_stays_as_near_to_float32_as_plain_attention():
    """Both round the weights to bfloat16 before the product with the values."""
    case, random = Case(1, 256), np.random.default_rng(0)
    shape = (1, 256, HEADS, WIDTH)
    inputs = tuple(jnp.asarray(random.normal(size=shape), jnp.bfloat16) for _ in range(3))
    table = jnp.asarray(random.normal(size=(BUCKETS, HEADS)), jnp.float32)
    exact = tuple(a.astype(jnp.float32) for a in inputs)
    layer, context = case.layer("plain"), case.context()
    expected = layer._by_blocks(exact, context, table)
    errors = [
        float(jnp.abs(y.astype(jnp.float32) - expected).max())
        for y in (
            layer._by_kernel(inputs, context, table, interpret=True),
            layer._by_blocks(inputs, context, table),
        )
    ]
    assert 0 < errors[0] < 1.5 * errors[1]


ON_TPU = """
import sys
import jax, jax.numpy as jnp
from flax import nnx
from jax.sharding import SingleDeviceSharding
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.models.attention import Attention
from moe_jax.models.batch_context import BatchContext
from moe_jax.models.config import ModelConfig

device = parse_topology(sys.argv[1]).devices()[0]
for position, dtype, length, segments, prefix in (
    ("relative", "bfloat16", 2048, True, False),
    ("relative", "float32", 300, True, True),
    ("rotary", "bfloat16", 1024, False, False),
    # The longest rows that `choose_attention` gives it.
    ("relative", "bfloat16", 8192, True, True),
    ("relative", "float32", 4096, True, True),
):
    config = ModelConfig(vocab_size=8, num_layers=1, d_model=256, num_heads=2, head_dim=128,
                         d_ff=8, position=position, compute_dtype=dtype)
    layer = Attention(config, nnx.Rngs(0))
    def array(*shape, dtype=dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=SingleDeviceSharding(device))
    def step(q, k, v, table, rows):
        batch = BatchContext(rows, rows, rows > 0, rows if segments else None,
                             rows if prefix else None)
        def loss(q, k, v, table):
            return layer._by_kernel((q, k, v), batch, table, interpret=False).sum()
        return jax.grad(loss, (0, 1, 2, 3))(q, k, v, table)
    qkv = [array(1, length, 2, 128)] * 3
    table = array(32, 2, dtype="float32") if position == "relative" else None
    program = jax.jit(step).lower(*qkv, table, array(1, length, dtype="int32")).compile()
    print("compiled", program.as_text().count("tpu_custom_call"))
"""


@needed
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_it_compiles_for_every_tpu(topology):
    """With code: a kernel that needs too much memory on the chip fails only then."""
    lines = run_child(topology, ON_TPU, topology).splitlines()
    assert [line.split()[0] for line in lines] == ["compiled"] * 5
