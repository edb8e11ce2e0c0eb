"""Memory usage from the compiler's texts, by hand."""

import pytest

from moe_jax.cost_model.memory_usage import MemoryUsage, read_memory_usage
from moe_jax.hlo.parser import parse_module

PROGRAM = """HloModule jit_step, is_scheduled=true

%go (s: (s32[], f32[4,8], f32[8], f32[8])) -> pred[] {
  %s = (s32[], f32[4,8], f32[8], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %n = s32[] constant(4)
  ROOT %l = pred[] compare(%i, %n), direction=LT
}
%body (s.1: (s32[], f32[4,8], f32[8], f32[8])) -> (s32[], f32[4,8], f32[8], f32[8]) {
  %s.1 = (s32[], f32[4,8], f32[8], f32[8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %kept = f32[4,8] get-tuple-element(%s.1), index=1
  %x = f32[8] get-tuple-element(%s.1), index=2
  %same = f32[8] get-tuple-element(%s.1), index=3
  %one = s32[] constant(1)
  %j = s32[] add(%i.1, %one)
  %y = f32[8] negate(%x), metadata={op_name="jit(step)/while/body/attention/neg"}
  %row = f32[1,8] bitcast(%y)
  %z = s32[] constant(0)
  %dus = f32[4,8] dynamic-update-slice(%kept, %row, %i.1, %z)
  ROOT %r = (s32[], f32[4,8], f32[8], f32[8]) tuple(%j, %dus, %y, %same)
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  %zero = s32[] constant(0)
  %space = f32[4,8] broadcast(%zero), dimensions={}
  %w = f32[8] exponential(%p), metadata={op_name="jit(step)/moe/experts/exp"}
  %v = f32[8] convert(%w)
  %t = (s32[], f32[4,8], f32[8], f32[8]) tuple(%zero, %space, %p, %v)
  %while = (s32[], f32[4,8], f32[8], f32[8]) while(%t), condition=%go, body=%body
  %u = f32[8] get-tuple-element(%while), index=2
  %f = f32[8] sine(%u), metadata={op_name="jit(step)/optimizer/sin"}
  %g = f32[8] cosine(%u)
  %pair = (f32[8], f32[8]) tuple(%f, %w)
  %second = f32[8] get-tuple-element(%pair), index=1
  %moved = f32[8] copy(%second)
  %joined = f32[8] custom-call(%moved), custom_call_target="ConcatBitcast"
  %table = f32[4,8] broadcast(%f), dimensions={1}, metadata={op_name="jit(step)/embed/broadcast"}
  %line = f32[1,8] bitcast(%w)
  %filled = f32[4,8] dynamic-update-slice(%table, %line, %zero, %zero)
  ROOT %o = f32[8] add(%f, %g)
}
"""
BUFFERS = """BufferAssignment:
allocation 0: size 1000, parameter 0, shape |f32[8]| at ShapeIndex {}:
 value: <1 p @0> (size=32,offset=0): f32[8]{0}
allocation 1: size 200, maybe-live-out:
 value: <2 o @0> (size=32,offset=0): f32[8]{0}
allocation 2: size 64, thread-local:
 value: <3 inner @0> (size=64,offset=0): f32[16]{0}
allocation 3: size 700, color 3, preallocated-temp:
 value: <4 g @3> (size=500,offset=0): f32[8]{0:S(3)}
allocation 4: size 40, constant:
allocation 5: size 5000, preallocated-temp:
 value: <5 space @0> (size=2000,offset=0): f32[4,8]{1,0}
 value: <6 w @0> (size=100,offset=2000): f32[8]{0}
 value: <7 v @0> (size=30,offset=2100): f32[8]{0}
 value: <8 f @0> (size=7,offset=2130): f32[8]{0}
 value: <9 while{3} (phi) @0> (size=11,offset=2137): f32[8]{0}
 value: <10 gone @0> (size=3,offset=2148): f32[8]{0}
 value: <11 zero @0> (size=5,offset=2151): s32[]
 value: <12 moved @0> (size=17,offset=2156): f32[8]{0}
 value: <13 filled @0> (size=19,offset=2173): f32[4,8]{1,0}
 value: <14 joined @0> (size=23,offset=2192): f32[8]{0}
 value: <15 s.1{2} (phi) @0> (size=29,offset=2215): f32[8]{0}
 value: <16 s.1{1} @0> (size=2000,offset=0): f32[4,8]{1,0}

Total bytes used: 7004
"""
LIVE = """HloLiveRange (max 10):
  InstructionSequence:
    0:p
  Live ranges at 7 (peak):
    space{}: 2000 bytes (cumulative: 2000 bytes)
    p{}: 1000 bytes (cumulative: 3000 bytes)
    g{}: 500 bytes (cumulative: 3500 bytes)
    w{}: 100 bytes (cumulative: 3600 bytes)
    v{}: 30 bytes (cumulative: 3630 bytes)
    while{3}: 11 bytes (cumulative: 3641 bytes)
    f{}: 7 bytes (cumulative: 3648 bytes)
    zero{}: 5 bytes (cumulative: 3653 bytes)
    gone{}: 3 bytes (cumulative: 3656 bytes)
    moved{}: 17 bytes (cumulative: 3673 bytes)
    filled{}: 19 bytes (cumulative: 3692 bytes)
    joined{}: 23 bytes (cumulative: 3715 bytes)
    s.1{2}: 29 bytes (cumulative: 3744 bytes)
    s.1{1}: 2000 bytes (cumulative: 5744 bytes)

  f{}: 900 bytes (cumulative: 4548 bytes)
"""
ARGUMENTS = {"parameters": 600, "optimiser": 300, "batch": 50}


def test_hbm_is_all_that_is_not_local_and_not_in_another_memory():
    memory = read_memory_usage(BUFFERS, LIVE, ARGUMENTS, parse_module(PROGRAM))
    assert (memory.total, memory.heap) == (1000 + 200 + 40 + 5000, 5000)
    assert memory.arguments == ARGUMENTS


def test_buffers_belong_to_what_made_them():
    memory = read_memory_usage(BUFFERS, LIVE, ARGUMENTS, parse_module(PROGRAM))
    assert memory.at_peak == {
        # What a loop fills, or carries, is what its body writes there.
        "attention, kept of every layer": 2000 + 29,
        # By the name, through a conversion, a loop, a tuple and a call; and by what is written.
        "experts": 100 + 30 + 11 + 17 + 19 + 23,
        "the rest": 5 + 3,
        "optimiser": 7,
    }
    # Neither the argument nor what is in another memory, and what has two names once.
    assert sum(memory.at_peak.values()) == 2192 + 23 + 29


def test_the_largest_consumers():
    memory = MemoryUsage(30, {"parameters": 5, "optimiser": 3}, 12, {"optimiser": 4, "experts": 1})
    assert memory.largest(3) == [
        ("padding and results", 30 - 12 - 5 - 3),
        ("packing, while the step runs", 12 - 4 - 1),
        ("parameters", 5),
    ]
    assert sum(memory.parts.values()) == memory.total
    # What there is none of is no row.
    memory = MemoryUsage(13, {"parameters": 5, "optimiser": 3}, 5, {"optimiser": 4, "experts": 1})
    assert len(memory.consumers) == len(memory.parts) == 4


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no allocation in HBM"):
        read_memory_usage("nothing\n", LIVE, ARGUMENTS, parse_module(PROGRAM))


def test_without_live_ranges_there_still_is_a_total():
    memory = read_memory_usage(BUFFERS, "", ARGUMENTS, parse_module(PROGRAM))
    assert (memory.total, dict(memory.at_peak)) == (6240, {})


def test_an_argument_that_a_loop_has_again_is_a_copy():
    program = """HloModule jit_step, is_scheduled=true

%go (s: (pred[], f32[8])) -> pred[] {
  %s = (pred[], f32[8]) parameter(0)
  ROOT %l = pred[] get-tuple-element(%s), index=0
}
%body (s.1: (pred[], f32[8])) -> (pred[], f32[8]) {
  %s.1 = (pred[], f32[8]) parameter(0)
  %l.1 = pred[] get-tuple-element(%s.1), index=0
  %same = f32[8] get-tuple-element(%s.1), index=1
  %no = pred[] not(%l.1)
  ROOT %r = (pred[], f32[8]) tuple(%no, %same)
}
ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  %yes = pred[] constant(true)
  %t = (pred[], f32[8]) tuple(%yes, %p)
  %while = (pred[], f32[8]) while(%t), condition=%go, body=%body
  ROOT %o = f32[8] get-tuple-element(%while), index=1
}
"""
    buffers = """BufferAssignment:
allocation 0: size 32, parameter 0, shape |f32[8]| at ShapeIndex {}:
 value: <1 p @0> (size=32,offset=0): f32[8]{0}
allocation 1: size 40, preallocated-temp:
 value: <2 s.1{1} @0> (size=32,offset=0): f32[8]{0}
"""
    live = """  Live ranges at 3 (peak):
    p{}: 32 bytes (cumulative: 32 bytes)
    s.1{1}: 32 bytes (cumulative: 64 bytes)
"""
    memory = read_memory_usage(buffers, live, {"parameters": 32}, parse_module(program))
    assert (memory.total, memory.at_peak) == (72, {"copies of the arguments": 32})


def test_a_converted_argument_is_a_copy():
    program = """HloModule jit_step, is_scheduled=true

ENTRY %main (p: f32[8]) -> bf16[8] {
  %p = f32[8] parameter(0)
  %c = bf16[8] convert(%p)
  ROOT %n = bf16[8] negate(%c)
}
"""
    buffers = """BufferAssignment:
allocation 0: size 32, parameter 0, shape |f32[8]| at ShapeIndex {}:
 value: <1 p @0> (size=32,offset=0): f32[8]{0}
allocation 1: size 48, preallocated-temp:
 value: <2 c @0> (size=16,offset=0): bf16[8]{0}
 value: <3 n @0> (size=16,offset=16): bf16[8]{0}
"""
    live = """  Live ranges at 3 (peak):
    c{}: 16 bytes (cumulative: 16 bytes)
    n{}: 16 bytes (cumulative: 32 bytes)
"""
    memory = read_memory_usage(buffers, live, {"parameters": 32}, parse_module(program))
    assert memory.at_peak == {"copies of the arguments": 16, "the rest": 16}
