"""Gathers, scatters and sorts, counted by hand."""

from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.parser import parse_module
from moe_jax.hlo.row_accesses import RowAccess, Sort, find_row_accesses

PROGRAM = """HloModule m, is_scheduled=true

%less (a: f32[], b: f32[], c: s32[], d: s32[]) -> pred[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  %c = s32[] parameter(2)
  %d = s32[] parameter(3)
  ROOT %l = pred[] compare(%a, %b), direction=LT
}
%add (e: bf16[], f: bf16[]) -> bf16[] {
  %e = bf16[] parameter(0)
  %f = bf16[] parameter(1)
  ROOT %s = bf16[] add(%e, %f)
}
%fused (t: bf16[100,64], i: s32[30,1]) -> bf16[30,64] {
  %t = bf16[100,64] parameter(0)
  %i = s32[30,1] parameter(1)
  ROOT %g = bf16[30,64] gather(%t, %i), offset_dims={1}, slice_sizes={1,64}
}
ENTRY %main (p: bf16[100,64], q: s32[30,1], r: f32[8,1000], n: s32[8,1000]) -> bf16[100,64] {
  %p = bf16[100,64] parameter(0)
  %q = s32[30,1] parameter(1)
  %r = f32[8,1000] parameter(2)
  %n = s32[8,1000] parameter(3)
  %rows = bf16[30,64] fusion(%p, %q), kind=kCustom, calls=%fused
  %order = (f32[8,1000], s32[8,1000]) sort(%r, %n), dimensions={1}, to_apply=%less
  %into = bf16[100,64] scatter(%p, %q, %rows), update_window_dims={1}, SORTED
  ROOT %copy = bf16[100,64] copy(%into)
}
"""


def found(text):
    module = parse_module(text)
    return find_row_accesses(module, count_executions(module))


def access(position, is_scatter, is_sorted=False):
    return RowAccess(
        "main",
        position,
        is_scatter=is_scatter,
        is_sorted=is_sorted,
        rows=30,
        row_bytes=128.0,
        executions=1.0,
    )


def test_rows_and_sorts_are_found_inside_fusions_too():
    assert found(PROGRAM.replace(", SORTED", "")) == [
        access(4, is_scatter=False),
        Sort("main", 5, length=1000, elements=2 * 8 * 1000, executions=1.0),
        access(6, is_scatter=True),
    ]


def test_sorted_indices_are_known():
    *_, scatter = found(PROGRAM.replace("SORTED", "indices_are_sorted=true"))
    assert scatter == access(6, is_scatter=True, is_sorted=True)
