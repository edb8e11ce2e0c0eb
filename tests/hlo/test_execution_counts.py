"""Execution counts of computations."""

from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.parser import parse_module

NESTED = """HloModule m
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
%leaf (x: f32[4]) -> f32[] {
  %x = f32[4] parameter(0)
  %nought = f32[] constant(0)
  ROOT %red = f32[] reduce(%x, %nought), dimensions={0}, to_apply=%add
}
%called (x.2: f32[4]) -> f32[] {
  %x.2 = f32[4] parameter(0)
  ROOT %f.2 = f32[] fusion(%x.2), kind=kLoop, calls=%leaf
}
%wrapped (x.3: f32[4]) -> f32[] {
  %x.3 = f32[4] parameter(0)
  ROOT %c = f32[] call(%x.3), to_apply=%called
}
%c1 (s: (s32[], f32[4])) -> pred[] {
  %s = (s32[], f32[4]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(3)
  ROOT %l = pred[] compare(%i, %n), direction=LT
}
%b1 (s.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %s.1 = (s32[], f32[4]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %v = f32[4] get-tuple-element(%s.1), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i.1, %one)
  %f = f32[] fusion(%v), kind=kLoop, calls=%leaf
  ROOT %r = (s32[], f32[4]) tuple(%j, %v)
}
%c0 (t: (s32[], f32[4])) -> pred[] {
  %t = (s32[], f32[4]) parameter(0)
  %k = s32[] get-tuple-element(%t), index=0
  %m = s32[] constant(5)
  ROOT %g = pred[] compare(%k, %m), direction=LT
}
%b0 (t.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %t.1 = (s32[], f32[4]) parameter(0)
  %k.1 = s32[] get-tuple-element(%t.1), index=0
  %u = f32[4] get-tuple-element(%t.1), index=1
  %one.1 = s32[] constant(1)
  %k.2 = s32[] add(%k.1, %one.1)
  %zero.1 = s32[] constant(0)
  %state.1 = (s32[], f32[4]) tuple(%zero.1, %u)
  %w.1 = (s32[], f32[4]) while(%state.1), condition=%c1, body=%b1
  ROOT %r.1 = (s32[], f32[4]) tuple(%k.2, %u)
}
ENTRY %main (p: f32[4], q: pred[]) -> f32[] {
  %p = f32[4] parameter(0)
  %q = pred[] parameter(1)
  %zero = s32[] constant(0)
  %state = (s32[], f32[4]) tuple(%zero, %p)
  %w = (s32[], f32[4]) while(%state), condition=%c0, body=%b0
  %start = ((f32[4]), f32[], u32[]) async-start(%p), calls=%wrapped
  %done = f32[] async-done(%start)
  %direct = f32[] call(%p), to_apply=%called
  ROOT %cond = f32[] conditional(%q, %p, %p), branch_computations={%leaf, %called}
}
"""


def test_loops_multiply_and_callers_add():
    counts = count_executions(parse_module(NESTED))
    assert counts.computations["b1"] == 5 * 3
    assert counts.computations["c1"] == 5 * (3 + 1)
    # From the wrapper, directly, and from a branch.
    assert counts.computations["called"] == 3
    # From the inner loop, from each of those, and from the other branch.
    assert counts.computations["leaf"] == 15 + 3 + 1
    assert counts.computations["add"] == 0  # Once for each element: part of the reduction.


def test_the_inside_of_fusions_and_wrappers_is_not_scheduled():
    counts = count_executions(parse_module(NESTED))
    assert counts.scheduled == {
        "main": 1,
        "c0": 5 + 1,
        "b0": 5,
        "c1": 5 * (3 + 1),
        "b1": 5 * 3,
        "called": 2,  # By the call and by the branch; once more inside the wrapper.
        "leaf": 1,
    }
