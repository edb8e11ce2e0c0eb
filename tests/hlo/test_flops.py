"""FLOPs of matrix products, as dots, as convolutions and as kernels."""

import math

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.flops import find_matrix_products, total_flops, without_cost_estimate
from moe_jax.hlo.parser import parse_module


def products(entry, *others, fill=1.0):
    text = "HloModule m, is_scheduled=true\n\n" + "\n".join(others)
    module = parse_module(f"{text}\nENTRY %main (p: f32[]) -> f32[] {{\n{entry}\n}}\n")
    return find_matrix_products(module, count_executions(module), fill)


def product(lhs, rhs, line):
    (found,) = products(f"  %l = {lhs} parameter(0)\n  %r = {rhs} parameter(1)\n  ROOT %o = {line}")
    return found.flops


@pytest.mark.parametrize(
    ("lhs", "rhs", "out", "attributes", "expected"),
    [
        ("f32[3,5]", "f32[5,7]", "f32[3,7]", "lhs_contracting_dims={1}", 2 * 3 * 5 * 7),
        (
            "f32[2,3,5]",
            "f32[2,5,7]",
            "f32[2,3,7]",
            "lhs_batch_dims={0}, lhs_contracting_dims={2}",
            2 * 2 * 3 * 5 * 7,
        ),
        ("f32[3,4,5]", "f32[4,5]", "f32[3]", "lhs_contracting_dims={1,2}", 2 * 3 * 4 * 5),
        ("f32[3]", "f32[7]", "f32[3,7]", "lhs_contracting_dims={}", 2 * 3 * 7),
    ],
)
def test_a_dot(lhs, rhs, out, attributes, expected):
    assert product(lhs, rhs, f"{out} dot(%l, %r), {attributes}") == expected


def by_hand(size, kernel, result, stride, pad, dilate, kernel_dilate):
    """Counts the pairs that meet by writing the padded and dilated input out."""
    high = 10 * (result * stride + kernel * kernel_dilate)
    line = np.zeros(pad + (size - 1) * dilate + 1 + high, int)
    line[pad : pad + (size - 1) * dilate + 1 : dilate] = 1
    return sum(line[r * stride + k * kernel_dilate] for r in range(result) for k in range(kernel))


@pytest.mark.parametrize("seed", range(20))
def test_a_convolution_counts_the_pairs_that_meet(seed):
    rng = np.random.default_rng(seed)
    size, kernel, result = (int(n) for n in rng.integers(1, 9, 3))
    stride, dilate, kernel_dilate = (int(n) for n in rng.integers(1, 4, 3))
    pad = int(rng.integers(0, 6))
    window = (
        f"window={{size={kernel} stride={stride} pad={pad}_{rng.integers(0, 5)} "
        f"lhs_dilate={dilate} rhs_dilate={kernel_dilate} rhs_reversal={rng.integers(0, 2)}}}"
    )
    line = f"f32[3,{result},7] convolution(%l, %r), {window}, dim_labels=b0f_0io->b0f"
    expected = 2 * 3 * 7 * 5 * by_hand(size, kernel, result, stride, pad, dilate, kernel_dilate)
    assert product(f"f32[3,{size},5]", f"f32[{kernel},5,7]", line) == expected


@pytest.mark.parametrize(
    ("lhs", "rhs", "line", "expected"),
    [
        # A plain product, in several orders.
        ("[64,32]", "[32,16]", "[64,16] %s, dim_labels=bf_io->bf", 64 * 32 * 16),
        ("[64,32]", "[16,32]", "[64,16] %s, dim_labels=bf_oi->bf", 64 * 32 * 16),
        ("[32,64]", "[32,16]", "[64,16] %s, dim_labels=fb_io->bf", 64 * 32 * 16),
        # A batch of rows as a spatial axis.
        (
            "[2,8,32]",
            "[32,16,1]",
            "[2,8,16] %s, window={size=1}, dim_labels=0bf_io0->0bf",
            2 * 8 * 32 * 16,
        ),
        # A gradient of weights: the batch is the window.
        (
            "[2,8,32]",
            "[2,8,16]",
            "[32,16,1] %s, window={size=2}, dim_labels=0fb_0io->bf0",
            2 * 8 * 32 * 16,
        ),
        # Attention over a batch of 2 and 4 heads of 8: scores of 16 by 16 positions.
        (
            "[2,16,4,8]",
            "[2,16,4,8]",
            "[2,4,16,16] %s, window={size=2x4 stride=1x3 lhs_dilate=2x4}, "
            "dim_labels=0b1f_0o1i->01bf",
            2 * 4 * 16 * 16 * 8,
        ),
        # Heads written out by a padded and reversed window.
        (
            "[2,16,32,1]",
            "[4,8,32,1]",
            "[2,16,4,8] %s, window={size=1x4 pad=0_0x3_3 rhs_reversal=0x1}, "
            "dim_labels=0bf1_1oi0->0b1f",
            2 * 16 * 32 * 32,
        ),
    ],
)
def test_products_as_the_tpu_compiler_writes_them(lhs, rhs, line, expected):
    line = "bf16" + line % "convolution(%l, %r)"
    assert product(f"bf16{lhs}", f"bf16{rhs}", line) == 2 * expected


def test_groups_of_features_meet_only_their_own():
    line = (
        "f32[4,8,9] convolution(%l, %r), window={size=1}, dim_labels=b0f_0io->b0f, "
        "feature_group_count=3"
    )
    assert product("f32[4,8,6]", "f32[1,2,9]", line) == 2 * 4 * 8 * 9 * 2


def test_labels_that_do_not_fit_are_an_error():
    with pytest.raises(UserError, match="dim_labels of o do not fit"):
        product("f32[2,3]", "f32[3,4]", "f32[2,4] convolution(%l, %r), dim_labels=b0f_0io->b0f")


FUSED = """%inner (a: f32[3,5], b: f32[5,7]) -> f32[3,7] {
  %a = f32[3,5] parameter(0)
  %b = f32[5,7] parameter(1)
  ROOT %d = f32[3,7] dot(%a, %b), lhs_contracting_dims={1}, metadata={op_name="attention/dot"}
}
%outer (a.1: f32[3,5], b.1: f32[5,7]) -> f32[3,7] {
  %a.1 = f32[3,5] parameter(0)
  %b.1 = f32[5,7] parameter(1)
  %f = f32[3,7] fusion(%a.1, %b.1), kind=kOutput, calls=%inner
  ROOT %n = f32[3,7] negate(%f)
}
"""


def test_products_in_fusions_in_wrappers_and_in_calls_count_once_for_each_caller():
    found = products(
        """  %l = f32[3,5] parameter(0)
  %r = f32[5,7] parameter(1)
  %x = f32[3,7] fusion(%l, %r), kind=kOutput, calls=%outer
  %s = ((f32[3,5], f32[5,7]), f32[3,7], u32[]) async-start(%l, %r), calls=%outer
  %t = f32[3,7] async-done(%s)
  ROOT %c = f32[3,7] call(%l, %r), to_apply=%outer""",
        FUSED,
    )
    assert total_flops(found) == 3 * 2 * 3 * 5 * 7
    # Reached by the call, and by name of the computation that is scheduled.
    assert [(each.computation, each.position, each.executions) for each in found] == [
        ("outer", 2, 1),
        ("main", 2, 1),
        ("main", 3, 1),
    ]
    assert {each.op_name for each in found} == {"attention/dot"}


def test_products_of_a_call_inside_a_wrapper():
    found = products(
        """  %l = f32[3,5] parameter(0)
  %r = f32[5,7] parameter(1)
  %s = ((f32[3,5], f32[5,7]), f32[3,7], u32[]) async-start(%l, %r), calls=%wrapped
  ROOT %t = f32[3,7] async-done(%s)""",
        FUSED,
        """%wrapped (a.2: f32[3,5], b.2: f32[5,7]) -> f32[3,7] {
  %a.2 = f32[3,5] parameter(0)
  %b.2 = f32[5,7] parameter(1)
  ROOT %k = f32[3,7] call(%a.2, %b.2), to_apply=%outer
}
""",
    )
    assert [(each.computation, each.flops) for each in found] == [("main", 2 * 3 * 5 * 7)]


KERNELS = """  %l = bf16[3,5] parameter(0)
  %k = bf16[3,5] custom-call(%l), custom_call_target="tpu_custom_call", backend_config=\
{"custom_call_config":{"body":"TUzv","cost_estimate":{"flops":"1200","bytes_accessed":"7"}}}
  %q = bf16[3,5] custom-call(%k), custom_call_target="tpu_custom_call"
  %b = bf16[9] custom-call(), custom_call_target="AllocateBuffer"
  ROOT %d = bf16[3,3] dot(%q, %q), lhs_contracting_dims={1}, rhs_contracting_dims={1}
"""


def test_kernels_count_what_their_author_says_and_others_are_listed():
    found = products(KERNELS)
    assert total_flops(found) == 1200 + 2 * 3 * 3 * 5
    assert [each.name for each in without_cost_estimate(found)] == ["q"]
    assert total_flops(products(KERNELS, fill=0.25)) == 300 + 2 * 3 * 3 * 5
    # Attention has no rows of experts: its kernels are known by their names.
    name = 'metadata={op_name="jit(step)/jvp(attention_forward)/pallas_call"}'
    attention = KERNELS.replace('"7"}}}', f'"7"}}}}}}, {name}')
    assert total_flops(products(attention, fill=0.25)) == 1200 + 2 * 3 * 3 * 5


def test_loops_multiply_the_products_in_them():
    text = """HloModule m
%go (s: (s32[], f32[6,6])) -> pred[] {
  %s = (s32[], f32[6,6]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(9)
  ROOT %l = pred[] compare(%i, %n), direction=LT
}
%body (s.1: (s32[], f32[6,6])) -> (s32[], f32[6,6]) {
  %s.1 = (s32[], f32[6,6]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %x = f32[6,6] get-tuple-element(%s.1), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i.1, %one)
  %y = f32[6,6] dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %r = (s32[], f32[6,6]) tuple(%j, %y)
}
ENTRY %main (p: f32[6,6]) -> (s32[], f32[6,6]) {
  %p = f32[6,6] parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[6,6]) tuple(%zero, %p)
  ROOT %w = (s32[], f32[6,6]) while(%t), condition=%go, body=%body
}
"""
    module = parse_module(text)
    found = find_matrix_products(module, count_executions(module))
    assert total_flops(found) == 9 * 2 * math.prod((6, 6, 6))
