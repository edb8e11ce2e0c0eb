"""HBM traffic of instructions."""

import pytest

from moe_jax.cost_model.hbm_traffic import find_hbm_traffic
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.parser import parse_module

ARRAY = 16 * 8 * 4


def traffic(entry, *others):
    text = "HloModule m, is_scheduled=true\n\n" + "\n".join(others)
    module = parse_module(f"{text}\nENTRY %main (p: f32[16,8]) -> f32[] {{\n{entry}\n}}\n")
    return {each.name: each for each in find_hbm_traffic(module, count_executions(module))}


PARAMETERS = """  %p = f32[16,8]{1,0} parameter(0)
  %v = f32[16,8]{1,0:T(8,128)S(1)} parameter(1)
  %i = s32[] parameter(2)
"""


@pytest.mark.parametrize(
    ("line", "read", "written"),
    [
        ("f32[16,8] negate(%p)", ARRAY, ARRAY),
        ("f32[16,8]{1,0:S(1)} negate(%p)", ARRAY, 0),
        ("f32[16,8] add(%p, %v)", ARRAY, ARRAY),
        ("f32[16,8]{1,0:S(1)} negate(%v)", 0, 0),
        ("f32[1,8] dynamic-slice(%p, %i, %i), dynamic_slice_sizes={1,8}", 32 + 8, 32),
        ("f32[2,8] slice(%p), slice={[0:2], [0:8]}", 64, 64),
        ("f32[16,8] dynamic-update-slice(%p, %u, %i, %i)", 32 + 8, 32),
        ("f32[3,8] gather(%p, %g), offset_dims={1}", 96 + 12, 96),
        ("f32[16,8] scatter(%p, %g, %h), to_apply=%add", 12 + 96 + 96, 96),
    ],
)
def test_instructions_by_themselves(line, read, written):
    more = (
        "  %u = f32[1,8] parameter(3)\n  %g = s32[3] parameter(4)\n  %h = f32[3,8] parameter(5)\n"
    )
    add = "%add (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}\n"
    found = traffic(f"{PARAMETERS}{more}  ROOT %o = {line}", add)
    assert (found["o"].read, found["o"].written) == (read, written)
    assert list(found) == ["o"]


def test_copies_into_another_memory_count_where_they_start():
    found = traffic(
        f"{PARAMETERS}"
        "  %s = (f32[16,8]{1,0:S(1)}, f32[16,8]{1,0}, u32[]{:S(2)}) copy-start(%p)\n"
        "  %d = f32[16,8]{1,0:S(1)} copy-done(%s)\n"
        "  %t = (f32[16,8]{1,0}, f32[16,8]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%v)\n"
        "  ROOT %e = f32[16,8] copy-done(%t)"
    )
    assert {name: (each.read, each.written) for name, each in found.items()} == {
        "s": (ARRAY, 0),
        "t": (0, ARRAY),
    }


LAYER = """%slice (x: f32[16,8], j: s32[]) -> f32[1,8] {
  %x = f32[16,8] parameter(0)
  %j = s32[] parameter(1)
  ROOT %ds = f32[1,8] dynamic-slice(%x, %j, %j), dynamic_slice_sizes={1,8}
}
%read (x.1: f32[16,8], j.1: s32[], y: f32[1,8]) -> f32[1,8] {
  %x.1 = f32[16,8] parameter(0)
  %j.1 = s32[] parameter(1)
  %y = f32[1,8] parameter(2)
  %view = f32[16,8] bitcast(%x.1)
  %row = f32[1,8] fusion(%view, %j.1), kind=kLoop, calls=%slice
  ROOT %sum = f32[1,8] add(%row, %y)
}
%write (x.2: f32[16,8], j.2: s32[], y.2: f32[1,8]) -> (f32[16,8], f32[1,8]) {
  %x.2 = f32[16,8] parameter(0)
  %j.2 = s32[] parameter(1)
  %y.2 = f32[1,8] parameter(2)
  %n = f32[1,8] negate(%y.2)
  %dus = f32[16,8] dynamic-update-slice(%x.2, %n, %j.2, %j.2)
  ROOT %t = (f32[16,8], f32[1,8]) tuple(%dus, %n)
}
%twice (x.3: f32[16,8], j.3: s32[]) -> f32[16,8] {
  %x.3 = f32[16,8] parameter(0)
  %j.3 = s32[] parameter(1)
  %ds.3 = f32[1,8] dynamic-slice(%x.3, %j.3, %j.3), dynamic_slice_sizes={1,8}
  %b = f32[16,8] broadcast(%ds.3), dimensions={0,1}
  ROOT %m = f32[16,8] multiply(%x.3, %b)
}
"""


@pytest.mark.parametrize(
    ("line", "read", "written"),
    [
        # A row of the stacked weights, and what is added to it.
        ("f32[1,8] fusion(%p, %i, %u), kind=kLoop, calls=%read", 32 + 4 + 32, 32),
        ("f32[1,8]{1,0:S(1)} fusion(%v, %i, %u), kind=kLoop, calls=%read", 4 + 32, 0),
        # A row written in place, and once more beside it.
        ("(f32[16,8], f32[1,8]) fusion(%p, %i, %u), kind=kLoop, calls=%write", 4 + 32, 32 + 32),
        (
            "(f32[16,8], f32[1,8]{1,0:S(1)}) fusion(%p, %i, %u), kind=kLoop, calls=%write",
            4 + 32,
            32,
        ),
        # The whole array is read once, not once more for its row.
        ("f32[16,8] fusion(%p, %i), kind=kLoop, calls=%twice", ARRAY + 4, ARRAY),
    ],
)
def test_fusions_read_and_write_what_they_touch(line, read, written):
    found = traffic(f"{PARAMETERS}  %u = f32[1,8] parameter(3)\n  ROOT %o = {line}", LAYER)
    assert (found["o"].read, found["o"].written) == (read, written)


def test_an_asynchronous_slice_counts_where_it_starts():
    wrapped = """%wrapped (x: f32[16,8]) -> f32[2,8] {
  %x = f32[16,8] parameter(0)
  ROOT %s = f32[2,8]{1,0:S(1)} slice(%x), slice={[0:2], [0:8]}
}
"""
    found = traffic(
        f"{PARAMETERS}"
        "  %a = ((f32[16,8]), f32[2,8]{1,0:S(1)}, s32[]{:S(2)}) async-start(%p), calls=%wrapped\n"
        "  ROOT %d = f32[2,8]{1,0:S(1)} async-done(%a)",
        wrapped,
    )
    assert {name: (each.read, each.written) for name, each in found.items()} == {"a": (64, 0)}


def test_cycles_and_positions():
    found = traffic(
        f'{PARAMETERS}  ROOT %o = f32[16,8] negate(%p), metadata={{op_name="jit(f)/neg"}}, '
        'backend_config={"window_config":{"estimated_cycles":"1269"}}'
    )
    each = found["o"]
    assert (each.estimated_cycles, each.executions, each.position) == (
        1269,
        1,
        3,
    )
    assert each.bytes == 2 * ARRAY
