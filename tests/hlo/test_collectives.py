"""Collectives and their payloads by kind and form."""

import pytest
from collective_totals import totals

from moe_jax.hlo.collectives import find_collectives
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.parser import parse_module

GROUPS = "replica_groups=[2,4]<=[8]"
ADD = """%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""


def collectives(entry, *others):
    text = "HloModule m, is_scheduled=true, num_partitions=8\n\n" + ADD + "\n".join(others)
    module = parse_module(f"{text}\nENTRY %main (p: f32[16,8]) -> f32[16,8] {{\n{entry}\n}}\n")
    return find_collectives(module, count_executions(module))


PARAMETER = "  %p = f32[16,8]{1,0} parameter(0)\n"
BYTES = 16 * 8 * 4


@pytest.mark.parametrize(
    ("line", "kind", "payload"),
    [
        (f"f32[64,8] all-gather(%p), {GROUPS}, dimensions={{0}}", "all-gather", 4 * BYTES),
        (
            f"f32[4,8] reduce-scatter(%p), {GROUPS}, dimensions={{0}}, to_apply=%add",
            "reduce-scatter",
            BYTES,
        ),
        (f"f32[16,8] all-reduce(%p), {GROUPS}, to_apply=%add", "all-reduce", BYTES),
        (f"f32[16,8] all-to-all(%p), {GROUPS}, dimensions={{0}}", "all-to-all", BYTES),
        (
            f"(f32[16,8], f32[16,8]) all-to-all(%p, %p), {GROUPS}",
            "all-to-all",
            2 * BYTES,
        ),
        (
            "f32[16,8] collective-permute(%p), source_target_pairs={{0,1},{1,0},{2,2}}",
            "collective-permute",
            BYTES,
        ),
        (f"f32[16,8] collective-broadcast(%p), {GROUPS}", "collective-broadcast", BYTES),
        (
            f"f32[32,8] ragged-all-to-all(%p, %p, %p, %p, %p, %p), {GROUPS}",
            "ragged-all-to-all",
            BYTES,
        ),
        ("f32[16,8] all-reduce(%p), to_apply=%add, replica_groups={}", "all-reduce", BYTES),
    ],
)
def test_payload_bytes_by_kind(line, kind, payload):
    (found,) = collectives(f"{PARAMETER}  ROOT %c = {line}")
    assert (found.kind, found.payload_bytes, found.executions) == (kind, payload, 1)
    assert (found.start, found.done, found.is_async) == (1, 1, False)
    assert found.dtype == "f32"


@pytest.mark.parametrize(
    ("start", "payload"),
    [
        (f"(f32[16,8], f32[64,8]) all-gather-start(%p), {GROUPS}, dimensions={{0}}", 4 * BYTES),
        (f"f32[16,8] all-reduce-start(%p), {GROUPS}, to_apply=%add", BYTES),
        (
            "(f32[16,8], f32[16,8], u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%p), "
            "source_target_pairs={{0,1}}",
            BYTES,
        ),
        (f"((f32[16,8]), f32[4,8], u32[]) reduce-scatter-start(%p), {GROUPS}", BYTES),
    ],
)
def test_a_start_and_its_done_are_one(start, payload):
    kind = start.split(" ")[-1] if "start(" not in start else start.split("-start(")[0].split()[-1]
    (found,) = collectives(
        f"{PARAMETER}  %s = {start}\n  %n = f32[16,8] negate(%p)\n"
        f"  ROOT %d = f32[16,8] {kind}-done(%s)"
    )
    assert (found.kind, found.payload_bytes) == (kind, payload)
    assert (found.start, found.done, found.is_async) == (1, 3, True)


WRAPPED = f"""%wrapped (x: f32[16,8]) -> f32[4,8] {{
  %x = f32[16,8] parameter(0)
  ROOT %rs = f32[4,8] reduce-scatter(%x), {GROUPS}, dimensions={{0}}, to_apply=%add
}}
"""


@pytest.mark.parametrize("by_call", [False, True])
@pytest.mark.parametrize("word", ["async", "call"])
def test_an_asynchronous_wrapper_on_the_sparse_core(word, by_call):
    called, others = "wrapped", [WRAPPED]
    if by_call:
        called = "outer"
        others.append(
            "%outer (y: f32[16,8]) -> f32[4,8] {\n  %y = f32[16,8] parameter(0)\n"
            "  ROOT %k = f32[4,8] call(%y), to_apply=%wrapped\n}\n"
        )
    key = "to_apply" if word == "call" else "calls"
    (found,) = collectives(
        f"{PARAMETER}"
        f"  %s = ((f32[16,8]), f32[4,8], u32[]) {word}-start(%p), {key}=%{called}, "
        'async_execution_thread="sparsecore"\n'
        "  %n = f32[16,8] negate(%p)\n"
        f"  %u = ((f32[16,8]), f32[4,8], u32[]) {word}-update(%s)\n"
        f"  ROOT %d = f32[4,8] {word}-done(%u)",
        *others,
    )
    assert (found.kind, found.payload_bytes) == ("reduce-scatter", BYTES)
    assert (found.start, found.done) == (1, 4)


def test_what_a_plain_call_reaches_counts_once():
    (found,) = collectives(
        f"{PARAMETER}  %k = f32[4,8] call(%p), to_apply=%wrapped\n"
        "  ROOT %k2 = f32[4,8] call(%p), to_apply=%wrapped",
        WRAPPED,
    )
    assert (found.computation, found.executions) == ("wrapped", 2)


_CONFIG = 'backend_config={"async_collective_fusion_config":{"flag_start":"%s"}}'
_STATE = "(f32[16,8], f32[64,8], u32[])"
CHAIN = [
    f"""%begin (x: f32[16,8]) -> {_STATE} {{
  %x = f32[16,8] parameter(0)
  %ag = f32[64,8] all-gather(%x), {GROUPS}, dimensions={{0}}, {_CONFIG % -1}
  ROOT %cc = {_STATE} custom-call(%ag), custom_call_target="AsyncCollectiveStart"
}}
""",
    f"""%middle (x.1: f32[16,8], y.1: f32[64,8], z.1: u32[], w: f32[8,8]) -> (f32[8,8]) {{
  %x.1 = f32[16,8] parameter(0)
  %y.1 = f32[64,8] parameter(1)
  %z.1 = u32[] parameter(2)
  %w = f32[8,8] parameter(3)
  %ag.1 = f32[64,8] all-gather(%x.1), {GROUPS}, dimensions={{0}}, {_CONFIG % 2}
  %mm = f32[8,8] dot(%w, %w), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %t.1 = (f32[8,8], f32[16,8], f32[64,8], u32[]) tuple(%mm, %x.1, %ag.1, %z.1)
}}
""",
    f"""%end (x.2: f32[16,8], y.2: f32[64,8], z.2: u32[]) -> f32[64,8] {{
  %x.2 = f32[16,8] parameter(0)
  %y.2 = f32[64,8] parameter(1)
  %z.2 = u32[] parameter(2)
  %ag.2 = f32[64,8] all-gather(%x.2), {GROUPS}, dimensions={{0}}, {_CONFIG % 2}
  ROOT %cd = f32[64,8] custom-call(%ag.2), custom_call_target="AsyncCollectiveDone"
}}
""",
]
CHAIN_ENTRY = f"""{PARAMETER}  %w.1 = f32[8,8] constant({{...}})
  %b = {_STATE} fusion(%p), kind=kCustom, calls=%begin
  %b0 = f32[16,8] get-tuple-element(%b), index=0
  %b1 = f32[64,8] get-tuple-element(%b), index=1
  %b2 = u32[] get-tuple-element(%b), index=2
  %m = (f32[8,8], f32[16,8], f32[64,8], u32[]) fusion(%b0, %b1, %b2, %w.1), kind=kOutput, \
output_to_operand_aliasing={{{{1}}: (0, {{}}), {{2}}: (1, {{}}), {{3}}: (2, {{}})}}, calls=%middle
  %m0 = f32[8,8] get-tuple-element(%m), index=0
  %m1 = f32[16,8] get-tuple-element(%m), index=1
  %m2 = f32[64,8] get-tuple-element(%m), index=2
  %m3 = u32[] get-tuple-element(%m), index=3
  %other = f32[8,8] negate(%m0)
  ROOT %e = f32[64,8] fusion(%m1, %m2, %m3), kind=kCustom, calls=%end"""


def test_a_chain_of_continuation_fusions_is_one():
    (found,) = collectives(CHAIN_ENTRY, *CHAIN)
    assert (found.kind, found.payload_bytes) == ("all-gather", 4 * BYTES)
    assert (found.start, found.done) == (2, 12)


def test_a_result_of_a_continuation_is_no_part_of_its_collective():
    second = [part.replace("%", "%s.").replace("%s.add", "%add") for part in CHAIN]
    entry = CHAIN_ENTRY.replace("ROOT %e", "%e") + (
        f"\n  %h = f32[16,8] broadcast(%m0), dimensions={{}}"
        f"\n  %sb = {_STATE} fusion(%h), kind=kCustom, calls=%s.begin"
        "\n  %sb0 = f32[16,8] get-tuple-element(%sb), index=0"
        "\n  %sb1 = f32[64,8] get-tuple-element(%sb), index=1"
        "\n  %sb2 = u32[] get-tuple-element(%sb), index=2"
        "\n  ROOT %se = f32[64,8] fusion(%sb0, %sb1, %sb2), kind=kCustom, calls=%s.end"
    )
    first, other = collectives(entry, *CHAIN, *second)
    assert (first.start, first.done) == (2, 12)
    assert (other.start, other.done) == (14, 18)


@pytest.mark.parametrize(("kept", "kind"), [(4, "reduce-scatter"), (8, "all-reduce")])
def test_a_fusion_that_keeps_one_slice_of_an_all_reduce_is_a_reduce_scatter(kept, kind):
    fused = f"""%all-reduce-scatter (x: f32[16,8]) -> f32[{kept},8] {{
  %x = f32[16,8] parameter(0)
  %ar = f32[16,8] all-reduce(%x), {GROUPS}, to_apply=%add
  %i = u32[] partition-id()
  %z = u32[] constant(0)
  ROOT %ds = f32[{kept},8] dynamic-slice(%ar, %i, %z), dynamic_slice_sizes={{{kept},8}}
}}
"""
    (found,) = collectives(
        f"{PARAMETER}  ROOT %f = f32[{kept},8] fusion(%p), kind=kCustom, calls=%all-reduce-scatter",
        fused,
    )
    assert (found.kind, found.payload_bytes) == (kind, BYTES)


def test_an_all_gather_that_is_written_as_an_all_reduce_of_zeros():
    lines = (
        f"{PARAMETER}  %z = f32[] constant(0)\n"
        "  %zeros = f32[16,8] broadcast(%z), dimensions={}\n"
        "  %part = f32[4,8] slice(%p), slice={[0:4], [0:8]}\n"
        "  %i = s32[] constant(4)\n"
        "  %own = f32[16,8] dynamic-update-slice(%zeros, %part, %i, %i)\n"
        f"  %gathered = f32[16,8] all-reduce(%own), {GROUPS}, to_apply=%add\n"
        f"  ROOT %sum.1 = f32[16,8] all-reduce(%p), {GROUPS}, to_apply=%add"
    )
    assert [each.is_gather for each in collectives(lines)] == [True, False]
    assert {each.kind for each in collectives(lines)} == {"all-reduce"}


def test_executions_in_loops_and_totals_by_kind_and_axes():
    text = f"""HloModule m, is_scheduled=true, num_partitions=8
{ADD}
%go (s: (s32[], f32[16,8])) -> pred[] {{
  %s = (s32[], f32[16,8]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(6)
  ROOT %l = pred[] compare(%i, %n), direction=LT
}}
%body (s.1: (s32[], f32[16,8])) -> (s32[], f32[16,8]) {{
  %s.1 = (s32[], f32[16,8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %x = f32[16,8] get-tuple-element(%s.1), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i.1, %one)
  %y = f32[16,8] all-to-all(%x), {GROUPS}, dimensions={{0}}
  %z = f32[16,8] all-to-all(%y), replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, dimensions={{0}}
  %v = f32[16,8] all-reduce(%z), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  ROOT %r = (s32[], f32[16,8]) tuple(%j, %v)
}}
ENTRY %main (p: f32[16,8]) -> (s32[], f32[16,8]) {{
  %p = f32[16,8] parameter(0)
  %zero = s32[] constant(0)
  %t = (s32[], f32[16,8]) tuple(%zero, %p)
  ROOT %w = (s32[], f32[16,8]) while(%t), condition=%go, body=%body
}}
"""
    module = parse_module(text)
    found = find_collectives(module, count_executions(module))
    assert totals(found, (1, 2, 4), ("data", "fsdp", "expert")) == {
        ("all-to-all", ("expert",)): (12, 12 * BYTES),
        ("all-reduce", ("fsdp",)): (6, 6 * BYTES),
    }
