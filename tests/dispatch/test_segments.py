"""Segments cover every row of every expert once; the programs of both platforms agree on them."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import mostly_slow

from moe_jax.dispatch import grouped_ffn_loop, grouped_ffn_matmul
from moe_jax.dispatch.grouped_ffn import grouped_ffn
from moe_jax.dispatch.network import ExpertNetwork
from moe_jax.dispatch.segments import make_segments, segment_sizes
from moe_jax.dispatch.sorted_tokens import SortedTokens

# Of these (rows, experts), so that few programs are compiled.
SIZES = [(1, 1), (37, 1), (5, 9), (64, 4), (203, 6), (400, 16)]


@functools.partial(jax.jit, static_argnums=1)
def segments_of(count_E, rows):
    return make_segments(count_E, rows, segment_sizes(rows, count_E.shape[0]))


@st.composite
def loads(draw):
    """Draws rows of each expert, the last rows being nobody's."""
    rows, experts = draw(st.sampled_from(SIZES))
    ends = st.integers(0, rows) | st.sampled_from([0, rows])
    cuts = draw(st.lists(ends, min_size=experts, max_size=experts))
    return np.diff(sorted(cuts), prepend=0).astype(np.int32), rows


@given(loads())
@settings(max_examples=60, deadline=None)
def test_segments_cover_every_row_of_every_expert_once(load):
    count, rows = load
    experts = len(count)
    sizes = segment_sizes(rows, experts)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[0] >= 1
    assert sizes[-1] <= rows
    # It holds what a balanced router sends.
    assert sizes[-1] >= min(rows, -(-rows // experts))
    segments = segments_of(count, rows)
    expert, start, number, bounds = map(
        np.asarray, (segments.expert_Z, segments.start_Z, segments.rows_Z, segments.bounds)
    )
    assert (np.diff(bounds) >= 0).all()
    assert bounds[0] == 0
    assert bounds[-1] == experts
    assert sorted(expert[:experts]) == list(range(experts))
    assert not number[: bounds[1]].any()  # Size 0: experts without rows.
    owner = np.full(rows, -1)
    owner[: sum(count)] = np.repeat(np.arange(experts), count)
    covered = np.zeros(rows, int)
    size_of = np.repeat((0, *sizes), np.diff(bounds))
    for g in range(experts + int(segments.further)):
        size = size_of[g] if g < experts else sizes[-1]
        assert number[g] <= size
        assert (number[g] > 0) == (size > 0)
        mine = slice(start[g], start[g] + number[g])
        assert (owner[mine] == expert[g]).all()
        covered[mine] += 1
    np.testing.assert_array_equal(covered, owner >= 0)


@pytest.mark.parametrize(("rows", "experts"), SIZES)
def test_all_rows_on_one_expert(rows, experts):
    """The worst case for further segments: they are as many as it takes."""
    largest = segment_sizes(rows, experts)[-1]
    for load in (0, 1, largest, min(largest + 1, rows), rows):
        count = np.zeros(experts, np.int32)
        count[experts // 2] = load
        segments = segments_of(count, rows)
        assert int(segments.further) == max(-(-load // largest) - 1, 0)
        assert len(segments.expert_Z) >= experts + int(segments.further)


CASES = {
    "uniform": (True, (6, 6, 6, 6), 0),
    "one expert": (True, (11,), 0),
    "ragged": (False, (3, 17, 1, 8), 0),
    "rows of nobody": (False, (3, 9, 1, 5), 7),
    "empty experts": (False, (0, 9, 0, 5, 0), 3),
    "further segments": (False, (0, 0, 70, 1, 0, 0, 0, 2), 9),
    "nothing": (False, (0, 0, 0), 10),
}


def arguments(count, spare):
    """Returns x [13, 4], tokens, weights and counts of sorted rows, and weights of experts."""
    rng = np.random.default_rng(0)
    tokens, width, hidden, rows = 13, 4, 6, sum(count) + spare
    x, dy = rng.normal(size=(2, tokens, width)).astype(np.float32)
    wi, wo = rng.normal(size=(2, len(count), width, hidden)).astype(np.float32)
    token = rng.integers(tokens, size=rows).astype(np.int32)
    weight = np.where(np.arange(rows) < sum(count), rng.normal(size=rows), 0).astype(np.float32)
    return (x, token, weight, np.array(count, np.int32), wi, wo), dy


@functools.partial(jax.jit, static_argnums=(0, 1))
def run(module, uniform, arrays, dy):
    *rows, wi, wo = arrays
    rows = SortedTokens(*rows, ExpertNetwork(wi, wo), uniform)
    y, pre = module.forward(rows)
    return y, pre, module.backward(rows, pre, dy)


def one_by_one(x, token, weight, count, wi, wo):
    """Returns the layer's y by its definition, row by row."""
    y = np.zeros(x.shape)
    for row, expert in enumerate(np.repeat(np.arange(len(count)), count)):
        hidden = jax.nn.gelu(x[token[row]] @ wi[expert])
        y[token[row]] += weight[row] * np.asarray(hidden) @ wo[expert].T
    return y


@pytest.mark.parametrize("case", mostly_slow(CASES, ["rows of nobody", "further segments"]))
def test_accelerators_program_equals_the_loop(case):
    """Batched and grouped products, expert by expert, and row by row; the gradients, too."""
    uniform, count, spare = CASES[case]
    arrays, dy = arguments(count, spare)
    expected = one_by_one(*arrays)
    results = [
        run(module, uniform, arrays, dy) for module in (grouped_ffn_loop, grouped_ffn_matmul)
    ]
    names = ("dx", "d_weight", "d_wi", "d_wo")
    for y, pre, gradients in results:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=2e-5)
        # What the backward pass reads of rows of nobody must be finite: 0 * NaN is NaN.
        assert not np.asarray(pre)[sum(count) :].any()
        assert all(np.isfinite(g).all() for g in gradients)
    for name, one, other in zip(names, results[0][2], results[1][2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5, err_msg=name)
        assert one.dtype == other.dtype
        assert np.asarray(one).any() == (sum(count) > 0)


@pytest.mark.parametrize("case", ["uniform", "rows of nobody"])
def test_each_platform_gets_its_program(case):
    """For TPU, on any machine: batched products, or else kernels for four products and two sums."""
    uniform, count, spare = CASES[case]
    arrays, _ = arguments(count, spare)
    x, token, weight, count, *weights = arrays

    def gradient(x, weight, *weights):
        y, backward = jax.vjp(
            lambda x, weight, *weights: grouped_ffn(
                SortedTokens(x, token, weight, count, ExpertNetwork(*weights), uniform)
            ),
            x,
            weight,
            *weights,
        )
        return y, backward(x)

    traced = jax.jit(gradient).trace(x, weight, *weights)
    programs = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
    assert "stablehlo.while" in programs["cpu"]
    assert "ragged_dot" not in programs["cpu"]
    assert ("stablehlo.while" in programs["tpu"]) == (not uniform)  # Of the kernels' metadata.
    assert "ragged_dot" not in programs["tpu"]
    assert ("@tpu_custom_call" in programs["tpu"]) == (not uniform)
