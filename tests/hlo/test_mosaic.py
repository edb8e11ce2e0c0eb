"""Work of kernels, beside counts by hand; kernels are lowered for TPU, which needs no TPU."""

import itertools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from moe_jax.hlo import mosaic
from moe_jax.hlo.mosaic import KernelProduct, kernel_work

# In the text of a lowered program.
BODY = r"\\22body\\22: \\22([A-Za-z0-9+/=]+)\\22"


def work_of(function, *shapes):
    """Returns the work of the one kernel of a function of bfloat16 arrays."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
    lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    (body,) = re.findall(BODY, lowered)
    return kernel_work.__wrapped__(body)  # Not what another test got for it.


M, K, N, BLOCK = 512, 384, 256, 128


def product(a_MK, b_KN, semantics=("parallel", "parallel", "arbitrary")):
    """A matrix product by tiles, the contracted tiles innermost."""

    def kernel(a_ref, b_ref, o_ref, sum_ref):
        @pl.when(pl.program_id(2) == 0)
        def _():
            sum_ref[...] = jnp.zeros_like(sum_ref)

        sum_ref[...] += jnp.dot(a_ref[...], b_ref[...], preferred_element_type=jnp.float32)

        @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
        def _():
            o_ref[...] = sum_ref[...].astype(o_ref.dtype)

    return pl.pallas_call(
        kernel,
        grid=(M // BLOCK, N // BLOCK, K // BLOCK),
        in_specs=[
            pl.BlockSpec((BLOCK, BLOCK), lambda m, n, k: (m, k)),
            pl.BlockSpec((BLOCK, BLOCK), lambda m, n, k: (k, n)),
        ],
        out_specs=pl.BlockSpec((BLOCK, BLOCK), lambda m, n, k: (m, n)),
        out_shape=jax.ShapeDtypeStruct((M, N), jnp.bfloat16),
        scratch_shapes=[pltpu.VMEM((BLOCK, BLOCK), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=semantics),
    )(a_MK, b_KN)


def test_a_product_by_tiles():
    work = work_of(product, (M, K), (K, N))
    assert work.steps == 4 * 2 * 3
    assert work.is_parallel
    assert work.flops() == 2 * M * K * N
    # Either operand is read once for each block of the other, the result written once.
    assert work.bytes == 2 * (M * K * (N // BLOCK) + K * N * (M // BLOCK) + M * N)
    # An addition for each contracted tile, and the conversion of the sum.
    assert work.vector_operations == M * N * (K // BLOCK + 1)


def test_without_a_parallel_dimension_one_core_works():
    work = work_of(lambda a, b: product(a, b, ("arbitrary",) * 3), (M, K), (K, N))
    assert not work.is_parallel


def triangle(a_MK, b_MK):
    """Products of the tiles on and below a diagonal, each as often as a loop says."""

    def kernel(a_ref, b_ref, o_ref):
        row, column = pl.program_id(0), pl.program_id(1)

        @pl.when(column <= row)
        def _():
            def add(step, total):
                return total + jnp.exp(
                    jnp.dot(a_ref[...], b_ref[...].T, preferred_element_type=jnp.float32)
                )

            o_ref[...] = jax.lax.fori_loop(0, 3, add, jnp.zeros((BLOCK, BLOCK), jnp.float32))

    tiles = M // BLOCK
    return pl.pallas_call(
        kernel,
        grid=(tiles, tiles),
        in_specs=[
            pl.BlockSpec((BLOCK, K), lambda row, column: (row, 0)),
            pl.BlockSpec((BLOCK, K), lambda row, column: (jnp.minimum(column, row), 0)),
        ],
        out_specs=pl.BlockSpec((BLOCK, BLOCK), lambda row, column: (row, column)),
        out_shape=jax.ShapeDtypeStruct((M, M), jnp.float32),
    )(a_MK, b_MK)


def test_branches_by_the_place_in_the_grid_and_loops():
    work = work_of(triangle, (M, K), (M, K))
    done = 4 * 5 // 2
    assert work.flops() == done * 3 * 2 * BLOCK * K * BLOCK
    # The second operand does not move above the diagonal: 0 | 0 1 | 0 1 2 | 0 1 2 3.
    columns = [min(column, row) for row in range(4) for column in range(4)]
    moves = 1 + sum(a != b for a, b in itertools.pairwise(columns))
    assert work.bytes == (4 + moves) * BLOCK * K * 2 + M * M * 4
    # A loop of 3: an exponential (4 operations) and an addition for each element.
    assert work.vector_operations >= done * 3 * 5 * BLOCK * BLOCK


def test_products_smaller_than_the_matrix_unit_fill_it():
    small = KernelProduct(m=8, k=64, n=192, dtype="bf16", executions=3.0)
    assert small.flops() == 3 * 2 * 8 * 64 * 192
    assert small.flops(128) == 3 * 2 * 8 * 128 * 256
    assert small.flops(256) == 3 * 2 * 8 * 256 * 256


@pytest.mark.parametrize("body", ["", "AAAA", "bm90IE1MSVI="])
def test_what_cannot_be_read_has_no_work(body):
    assert kernel_work(body) is None


def test_kernels_of_another_mosaic_have_no_work(monkeypatch):
    def unknown(self):
        raise KeyError("sym_name")

    monkeypatch.setattr(mosaic._Kernel, "work", unknown)
    assert work_of(product, (M, K), (K, N)) is None


@pytest.mark.parametrize("has_bias", [True, False])
def test_kernels_of_attention_do_what_their_estimates_say(has_bias):
    """Of four kinds of tiles, each place has one; those above the diagonal have none."""
    from moe_jax.models.attention_tiles import SQUARE, Bias
    from moe_jax.models.flash_attention import flash_attention

    heads, bias = 2, None
    if has_bias:
        bias = Bias(jnp.zeros((heads, SQUARE, 2 * SQUARE)), jnp.zeros(heads), jnp.zeros(heads))

    def loss(qkv):
        return flash_attention(qkv, bias).astype(jnp.float32).sum()

    qkv = (jax.ShapeDtypeStruct((1, 2048, heads, 128), jnp.bfloat16),) * 3
    lowered = jax.jit(jax.grad(loss)).trace(qkv).lower(lowering_platforms=("tpu",)).as_text()
    bodies = re.findall(BODY, lowered)
    estimates = [float(flops) for flops in re.findall(r"\\22flops\\22: ?(\d+)", lowered)]
    assert len(bodies) == len(estimates) == 2
    for body, flops in zip(bodies, estimates, strict=True):
        work = kernel_work(body)
        assert (work.flops(), work.is_parallel) == (flops, True)
        assert work.flops(128) == flops < work.flops(256)
