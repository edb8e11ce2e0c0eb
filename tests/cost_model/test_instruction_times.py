"""Seconds of single instructions, by hand."""

import dataclasses

import pytest

from moe_jax.cost_model.chips import get_chip
from moe_jax.cost_model.hbm_traffic import HbmTraffic
from moe_jax.cost_model.instruction_times import InstructionTimes, Prices
from moe_jax.hlo.flops import MatrixProduct
from moe_jax.hlo.mosaic import KernelProduct, KernelWork
from moe_jax.hlo.row_accesses import RowAccess, Sort

HERE = ("main", 0)
PRICES = Prices(product=0.5, kernel=0.25, hbm=0.5, grid_step=1e-6, row=1e-8)
# Peaks of Google's pages; a vector unit does 8 x 128 x 4 operations a cycle.
PEAK, HBM, CLOCK = {"v5p": 459e12, "v6e": 918e12}, 2765e9, 1.75e9
VECTOR = 8 * 128 * 4 * CLOCK


def seconds(*, products=(), size=0, rows=(), chip="v5p"):
    traffic = [HbmTraffic("i", *HERE, read=size, written=0, executions=1, estimated_cycles=None)]
    times = InstructionTimes(products, traffic, rows, get_chip(chip), PRICES)
    return times.seconds(HERE)


def kernel(work, occupancy=1.0):
    return MatrixProduct("k", *HERE, "", 1e12, 1.0, True, work, occupancy)


WORK = KernelWork(
    steps=100.0,
    is_parallel=True,
    products=(KernelProduct(m=1024, k=192, n=256, dtype="bf16", executions=1000.0),),
    vector_operations=1e6,
    bytes=1e6,
)
FLOPS = 2 * 1024 * 256 * 256 * 1000  # 192 fill two tiles of 128, or one of 256.


def test_a_kernel_takes_its_products_in_whole_tiles_and_its_steps():
    expected = FLOPS / (0.25 * PEAK["v5p"]) + 100 * 1e-6 / 2
    assert seconds(products=[kernel(WORK)]) == pytest.approx(expected)
    # Half of its rows.
    assert seconds(products=[kernel(WORK, 0.5)]) == pytest.approx(expected / 2)
    # One core of two works, and does all steps.
    alone = dataclasses.replace(WORK, is_parallel=False)
    assert seconds(products=[kernel(alone)]) == pytest.approx(2 * expected)
    # v6e has one core.
    expected = FLOPS / (0.25 * PEAK["v6e"]) + 100 * 1e-6
    assert seconds(products=[kernel(WORK)], chip="v6e") == pytest.approx(expected)


def test_a_kernel_is_bound_by_its_vector_operations_or_its_blocks():
    vector = dataclasses.replace(WORK, vector_operations=1e12)
    assert seconds(products=[kernel(vector)]) == pytest.approx(1e12 / (2 * VECTOR) + 50e-6)
    streamed = dataclasses.replace(WORK, bytes=1e12)
    assert seconds(products=[kernel(streamed)]) == pytest.approx(1e12 / (0.5 * HBM) + 50e-6)


def test_a_kernel_of_unknown_work_takes_its_estimate():
    assert seconds(products=[kernel(None)]) == pytest.approx(1e12 / (0.25 * PEAK["v5p"]))


def access(is_sorted=False):
    return RowAccess(*HERE, False, is_sorted, rows=10_000, row_bytes=64.0, executions=1.0)


def test_rows_are_taken_one_by_one_by_both_cores():
    assert seconds(rows=[access()], size=1) == pytest.approx(10_000 * 1e-8 / 2)
    assert seconds(rows=[access()], size=10**12) == pytest.approx(1e12 / (0.5 * HBM))
    assert seconds(rows=[access(is_sorted=True)], size=1000) == pytest.approx(1000 / (0.5 * HBM))


def test_a_sort_is_bitonic():
    """1,024 elements: 10 x 11 / 2 passes of compare and exchange over 5 arrays."""
    found = seconds(rows=[Sort(*HERE, length=1024, elements=5 * 1024, executions=1.0)])
    assert found == pytest.approx(5 * 1024 * 55 * 4 / (2 * VECTOR))


def test_a_product_is_bound_by_flops_or_bytes():
    product = MatrixProduct("d", *HERE, "", 1e12, 1.0, False)
    assert seconds(products=[product]) == pytest.approx(1e12 / (0.5 * PEAK["v5p"]))
    assert seconds(products=[product], size=10**12) == pytest.approx(1e12 / (0.5 * HBM))
