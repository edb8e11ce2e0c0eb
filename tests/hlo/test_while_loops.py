"""Trip counts of while loops."""

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.parser import parse_module

_LOOP = """HloModule m, is_scheduled=true

%condition (s: ({t}[], f32[4], {t}[])) -> pred[] {{
  %s = ({t}[], f32[4], {t}[]) parameter(0)
  %bound = {t}[]{{:T(128)}} constant({bound})
  %i = {t}[] get-tuple-element(%s), index=0
  ROOT %go = pred[] compare({sides}), direction={direction}
}}

%body (s.1: ({t}[], f32[4], {t}[])) -> ({t}[], f32[4], {t}[]) {{
  %s.1 = ({t}[], f32[4], {t}[]) parameter(0)
  %step = {t}[] constant({step})
  %i.1 = {t}[] get-tuple-element(%s.1), index=0
  %x = f32[4] get-tuple-element(%s.1), index=1
  %k = {t}[] get-tuple-element(%s.1), index=2
  %next = {t}[] {update}(%i.1, %step)
  ROOT %r = ({t}[], f32[4], {t}[]) tuple(%next, %x, %k)
}}

ENTRY %main (p: f32[4]) -> f32[4] {{
  %p = f32[4] parameter(0)
  %zero = {t}[] constant({start})
  %zero.1 = {t}[] copy(%zero)
  %state = ({t}[], f32[4], {t}[]) tuple(%zero.1, %p, %zero)
  %w = ({t}[], f32[4], {t}[]) while(%state), condition=%condition, body=%body{attributes}
  ROOT %out = f32[4] get-tuple-element(%w), index=1
}}
"""


def loop(start, bound, step=1, direction="LT", dtype="s32", update="add", **other):
    settings = dict(sides="%i, %bound", attributes="") | other
    text = _LOOP.format(
        start=start,
        bound=bound,
        step=step,
        direction=direction,
        t=dtype,
        update=update,
        **settings,
    )
    return parse_module(text)


def iterations_on_the_device(start, bound, step, direction, dtype, update):
    """Goes through the iterations in numpy, which wraps as the device does."""
    kind = {"s32": np.int32, "u32": np.uint32, "s8": np.int8}[dtype]
    compare = {
        "LT": np.less,
        "LE": np.less_equal,
        "GT": np.greater,
        "GE": np.greater_equal,
        "NE": np.not_equal,
    }[direction]
    change = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply}[update]
    i, limit, by = (np.array([x]).astype(kind) for x in (start, bound, step))
    iterations = 0
    while compare(i, limit)[0]:
        i, iterations = change(i, by), iterations + 1
    return iterations


@pytest.mark.parametrize("dtype", ["s32", "u32"])
@pytest.mark.parametrize(
    ("start", "bound", "step", "direction", "update"),
    [
        (0, 16, 1, "LT", "add"),
        (0, 16, 1, "LE", "add"),
        (0, 17, 4, "LT", "add"),
        (0, 16, 4, "LE", "add"),
        (1, 16, 5, "NE", "add"),
        (9, 2, 3, "GT", "subtract"),
        (9, 3, 3, "GE", "subtract"),
        (5, 5, 1, "LT", "add"),
        (7, 5, 1, "LT", "add"),
        (1, 100, 3, "LT", "multiply"),
        (32, 0, 1, "GT", "subtract"),
    ],
)
def test_trip_count_of_a_counter(start, bound, step, direction, update, dtype):
    module = loop(start, bound, step, direction, dtype, update)
    expected = iterations_on_the_device(start, bound, step, direction, dtype, update)
    counts = count_executions(module, 1000)
    assert counts.loops[0].trip_count == expected
    assert counts.computations["body"] == expected
    assert counts.computations["condition"] == expected + 1


def test_a_counter_that_passes_its_bound_without_meeting_it_is_not_guessed():
    assert count_executions(loop(3, 16, 5, "NE"), 0).loops[0].trip_count is None


def test_counting_down_in_unsigned_numbers_by_adding_minus_one():
    module = loop(32, 0, 4294967295, "GT", "u32")
    assert count_executions(module).loops[0].trip_count == 32


def test_the_bound_may_stand_on_the_left():
    assert count_executions(loop(0, 12, 1, "GT", sides="%bound, %i")).computations["body"] == 12


def test_what_the_compiler_knows_comes_first():
    known = ', backend_config={"known_trip_count":{"n":"5"}}'
    assert count_executions(loop(0, 12, attributes=known)).computations["body"] == 5


def test_a_loop_invariant_bound_comes_from_outside():
    text = _LOOP.format(
        t="s32", bound=0, sides="%i, %k.0", direction="LT", step=1, update="add", start=6,
        attributes="",
    )  # fmt: skip
    text = text.replace(
        "  ROOT %go", "  %k.0 = s32[] get-tuple-element(%s), index=2\n  ROOT %go"
    ).replace("%zero.1 = s32[] copy(%zero)", "%zero.1 = s32[] constant(2)")
    assert count_executions(parse_module(text)).computations["body"] == 6 - 2


def test_data_dependent_trip_counts_are_reported_and_not_guessed():
    module = parse_module(
        _LOOP.format(
            t="s32", bound=0, sides="%i, %k.0", direction="LT", step=1, update="add", start=0,
            attributes=', metadata={op_name="jit(step)/moe/while"}',
        )
        .replace("  ROOT %go", "  %k.0 = s32[] get-tuple-element(%s), index=2\n  ROOT %go")
        .replace("%p, %zero)", "%p, %given)")
        .replace("  %zero =", "  %given = s32[] custom-call(), custom_call_target=\"x\"\n  %zero =")
    )  # fmt: skip
    with pytest.raises(
        UserError, match="trip count of the loop 'jit\\(step\\)/moe/while' depends on data"
    ):
        count_executions(module)
    assert count_executions(module, 0).computations["body"] == 0
    counts = count_executions(module, 3)
    assert counts.computations["body"] == 3
    assert [each.op_name for each in counts.data_dependent_loops] == ["jit(step)/moe/while"]


def test_a_loop_invariant_condition_is_not_guessed():
    text = _LOOP.format(
        t="s32", bound=3, sides="%k.0, %bound", direction="LT", step=1, update="add", start=0,
        attributes="",
    ).replace("%i = s32[] get-tuple-element(%s), index=0",
              "%k.0 = s32[] get-tuple-element(%s), index=2")  # fmt: skip
    assert count_executions(parse_module(text), 1).loops[0].trip_count is None


def test_a_bound_that_iterations_exchange_is_not_guessed():
    text = _LOOP.format(
        t="s32", bound=0, sides="%i, %k.0", direction="LT", step=1, update="add", start=6,
        attributes="",
    )  # fmt: skip
    text = (
        text.replace("f32[4]", "s32[]")
        .replace("  ROOT %go", "  %k.0 = s32[] get-tuple-element(%s), index=2\n  ROOT %go")
        .replace("tuple(%next, %x, %k)", "tuple(%next, %k, %x)")
    )
    assert count_executions(parse_module(text), 1).loops[0].trip_count is None


def test_a_condition_in_a_fusion():
    text = """HloModule m
%less (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %l = pred[] compare(%a, %b), direction=LT
}
%more (a.1: s32[]) -> s32[] {
  %a.1 = s32[] parameter(0)
  %two = s32[] constant(2)
  ROOT %n = s32[] add(%a.1, %two)
}
%condition (s: (s32[])) -> pred[] {
  %s = (s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %ten = s32[] constant(11)
  ROOT %go = pred[] fusion(%i, %ten), kind=kLoop, calls=%less
}
%body (s.1: (s32[])) -> (s32[]) {
  %s.1 = (s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %j = s32[] fusion(%i.1), kind=kLoop, calls=%more
  ROOT %r = (s32[]) tuple(%j)
}
ENTRY %main () -> (s32[]) {
  %zero = s32[] constant(0)
  %state = (s32[]) tuple(%zero)
  ROOT %w = (s32[]) while(%state), condition=%condition, body=%body
}
"""
    counts = count_executions(parse_module(text))
    assert counts.computations["body"] == counts.computations["more"] == 6
    assert counts.computations["less"] == 7
