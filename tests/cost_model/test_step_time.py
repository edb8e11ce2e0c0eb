"""Times of scheduled programs, added up by hand."""

import dataclasses

import numpy as np
import pytest

from moe_jax.cost_model.chips import get_chip
from moe_jax.cost_model.hbm_traffic import find_hbm_traffic
from moe_jax.cost_model.step_time import AnalyzedProgram, estimate_step_time
from moe_jax.cost_model.torus import Torus
from moe_jax.hlo.collectives import find_collectives
from moe_jax.hlo.execution_counts import count_executions
from moe_jax.hlo.flops import find_matrix_products
from moe_jax.hlo.parser import parse_module

CHIP = get_chip("v4")
PEAK, HBM, CLOCK = 275e12, 1200e9, 1.05e9  # Google's page of v4; libtpu's clock.
LINK = 45e9
# A ring of eight, and groups of four neighbours, which are lines.
TORUS = Torus((8,), (True,), LINK, np.arange(8)[:, None])
GROUPS = "replica_groups={{0,1,2,3,4,5,6,7}}"

ADD = """%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""
N = 4096
PARAMETERS = f"  %p = bf16[{N},{N}] parameter(0)\n  %q = bf16[{N},{N}] parameter(1)\n"
ARRAY = 2 * N * N
PRODUCT = 2 * N**3 / (0.94 * PEAK)  # 0.53 ms; its 3 arrays take 0.10 ms.
NEGATE = 2 * ARRAY / (0.8 * HBM)  # 0.07 ms
GATHER = ARRAY * 7 / 8 / (2 * LINK)  # 0.33 ms
ALL_REDUCE = 2 * GATHER
PART = f"bf16[{N // 8},{N}]"
CUT = f"  %part = {PART} parameter(2)\n"


def dot(name, *operands, end=""):
    return (
        f"  %{name} = bf16[{N},{N}] dot(%{operands[0]}, %{operands[1]}), "
        f"lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{end}\n"
    )


def gather(name, end="", operand="part"):
    return f"  %{name} = bf16[{N},{N}] all-gather(%{operand}), {GROUPS}, dimensions={{0}}{end}\n"


def start(name, operand="part"):
    shape = f"({PART}, bf16[{N},{N}])"
    return f"  %{name} = {shape} all-gather-start(%{operand}), {GROUPS}, dimensions={{0}}\n"


def done(name, of):
    return f"  %{name} = bf16[{N},{N}] all-gather-done(%{of})\n"


def negate(name, operand="p"):
    return f"  %{name} = bf16[{N},{N}] negate(%{operand})\n"


def time(lines, *others, chip=CHIP, is_upper=False, torus=TORUS, unknown=None):
    lines = lines.rstrip("\n").split("\n")
    lines[-1] = lines[-1].replace("  %", "  ROOT %", 1)
    entry = f"ENTRY %main (p: bf16[{N},{N}]) -> bf16[{N},{N}] {{\n" + "\n".join(lines) + "\n}\n"
    head = "HloModule m, is_scheduled=true, num_partitions=8\n\n"
    module = parse_module(head + ADD + "\n".join(others) + "\n" + entry)
    counts = count_executions(module, unknown)
    found = (
        find(module, counts) for find in (find_matrix_products, find_hbm_traffic, find_collectives)
    )
    return estimate_step_time(AnalyzedProgram(module, counts, *found), chip, torus, is_upper)


def test_a_product_alone_runs_near_the_peak():
    named = ', metadata={op_name="jit(step)/experts/dot"}'
    found = time(PARAMETERS + dot("d", "p", "q", end=named))
    assert found.seconds == found.matmul == pytest.approx(PRODUCT)
    assert (found.other, found.copies, dict(found.exposed)) == (0, 0, {})
    assert {name: s for name, s in found.by_name.items() if s} == {
        "jit(step)/experts/dot": found.seconds
    }


def test_a_product_with_few_flops_takes_the_time_of_its_bytes():
    lines = f"{PARAMETERS}  %v = bf16[8,{N}] parameter(2)\n"
    lines += (
        f"  %d = bf16[8,{N}] dot(%v, %p), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}"
    )
    found = time(lines)
    assert found.seconds == found.matmul == pytest.approx((ARRAY + 2 * 2 * 8 * N) / (0.8 * HBM))


def test_other_instructions_take_the_time_of_their_bytes():
    found = time(PARAMETERS + negate("n") + negate("m", "n"))
    assert found.seconds == found.other == pytest.approx(2 * NEGATE)
    assert found.matmul == 0


def test_a_synchronous_collective_is_exposed():
    found = time(PARAMETERS + CUT + dot("d", "p", "q") + gather("g"))
    assert found.seconds == pytest.approx(PRODUCT + GATHER)
    assert found.exposed == {("main", 4): pytest.approx(GATHER)}


def test_a_collective_behind_a_product_takes_no_time():
    found = time(PARAMETERS + CUT + start("s") + dot("d", "p", "q") + done("g", "s"))
    assert found.seconds == pytest.approx(PRODUCT)
    assert GATHER < PRODUCT
    assert found.exposed == {("main", 3): 0}


def test_a_collective_is_exposed_for_what_is_left_of_it():
    found = time(PARAMETERS + CUT + start("s") + negate("n") + done("g", "s") + negate("m"))
    assert found.seconds == pytest.approx(GATHER + NEGATE)
    assert found.exposed == {("main", 3): pytest.approx(GATHER - NEGATE)}
    assert found.other == pytest.approx(2 * NEGATE)


def test_collectives_share_the_links():
    two = start("s") + start("t")
    found = time(PARAMETERS + CUT + two + dot("d", "p", "q") + done("g", "s") + done("h", "t"))
    assert found.seconds == pytest.approx(2 * GATHER)
    assert found.exposed == {("main", 3): 0, ("main", 4): pytest.approx(2 * GATHER - PRODUCT)}


def test_a_synchronous_collective_waits_for_those_on_the_links():
    lines = start("s") + gather("g") + dot("d", "p", "q") + done("h", "s")
    found = time(PARAMETERS + CUT + lines)
    assert found.seconds == pytest.approx(2 * GATHER + PRODUCT)
    assert found.exposed == {("main", 3): 0, ("main", 4): pytest.approx(2 * GATHER)}


def test_one_axis_at_a_time_is_the_slower_end():
    torus = Torus((2, 4), (False, True), LINK, np.stack(np.divmod(np.arange(8), 4), axis=1))
    received = ARRAY * 7 / 8
    lines = PARAMETERS + CUT + gather("g")
    assert time(lines, torus=torus).seconds == pytest.approx(received / (3 * LINK))
    assert time(lines, torus=torus, is_upper=True).seconds == pytest.approx(received / (2 * LINK))


LOOP = f"""%go (s: (s32[], bf16[{N},{N}])) -> pred[] {{
  %s = (s32[], bf16[{N},{N}]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %limit = s32[] LIMIT
  ROOT %l = pred[] compare(%i, %limit), direction=LT
}}
%body (s.1: (s32[], bf16[{N},{N}])) -> (s32[], bf16[{N},{N}]) {{
  %s.1 = (s32[], bf16[{N},{N}]) parameter(0)
  %i.1 = s32[] get-tuple-element(%s.1), index=0
  %x = bf16[{N},{N}] get-tuple-element(%s.1), index=1
  %one = s32[] constant(1)
  %j = s32[] add(%i.1, %one)
  %y = bf16[{N},{N}] dot(%x, %x), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  %z = bf16[{N},{N}] all-reduce(%y), {GROUPS}, to_apply=%add
  ROOT %r = (s32[], bf16[{N},{N}]) tuple(%j, %z)
}}
"""
IN_LOOP = f"""  %zero = s32[] constant(0)
  %t = (s32[], bf16[{N},{N}]) tuple(%zero, %p)
  %w = (s32[], bf16[{N},{N}]) while(%t), condition=%go, body=%body
"""
COUNTERS = 8 * (2 * 4 + 4) + 9 * (
    2 * 4 + 1
)  # Bytes of the additions and comparisons of 8 iterations.


def test_a_loop_takes_its_body_times_its_trip_count():
    found = time(PARAMETERS + IN_LOOP, LOOP.replace("LIMIT", "constant(8)"))
    counting = COUNTERS / (0.8 * HBM)
    assert found.seconds == pytest.approx(8 * (PRODUCT + ALL_REDUCE) + counting, rel=1e-12)
    assert found.matmul == pytest.approx(8 * PRODUCT)
    assert found.other == pytest.approx(counting)
    assert found.exposed == {("body", 6): pytest.approx(8 * ALL_REDUCE)}
    # The additions and comparisons have no name.
    assert found.by_name[""] == pytest.approx(8 * PRODUCT + counting)


@pytest.mark.parametrize("iterations", [0, 3])
def test_a_data_dependent_loop_has_the_iterations_of_the_caller(iterations):
    lines = IN_LOOP.replace("%zero = s32[] constant(0)", "%zero = s32[] parameter(2)")
    found = time(PARAMETERS + lines, LOOP.replace("LIMIT", "constant(8)"), unknown=iterations)
    assert found.matmul == pytest.approx(iterations * PRODUCT)
    assert sum(found.exposed.values()) == pytest.approx(iterations * ALL_REDUCE)


BRANCHES = f"""%short (x.3: bf16[{N},{N}]) -> bf16[{N},{N}] {{
  %x.3 = bf16[{N},{N}] parameter(0)
  ROOT %n.3 = bf16[{N},{N}] negate(%x.3)
}}
%long (x.4: bf16[{N},{N}]) -> bf16[{N},{N}] {{
  %x.4 = bf16[{N},{N}] parameter(0)
  ROOT %n.4 = bf16[{N},{N}] dot(%x.4, %x.4), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
}}
"""


def test_of_a_conditional_the_longest_branch_counts():
    lines = f"""{PARAMETERS}  %c = s32[] parameter(2)
  %o = bf16[{N},{N}] conditional(%c, %p, %q), branch_computations={{%long, %short}}"""
    found = time(lines, BRANCHES)
    assert found.seconds == found.matmul == pytest.approx(PRODUCT)
    assert found.other == 0


def test_a_call_takes_what_it_calls_takes():
    lines = f"{PARAMETERS}  %k = bf16[{N},{N}] call(%p), to_apply=%long\n"
    lines += f"  %m = bf16[{N},{N}] call(%k), to_apply=%short"
    assert time(lines, BRANCHES).seconds == pytest.approx(PRODUCT + NEGATE)


def copy(name, operand="p"):
    shape = f"(bf16[{N},{N}]{{1,0:S(1)}}, bf16[{N},{N}]{{1,0}}, u32[]{{:S(2)}})"
    return f"  %{name} = {shape} copy-start(%{operand})\n"


def copied(name, of):
    return f"  %{name} = bf16[{N},{N}]{{1,0:S(1)}} copy-done(%{of})\n"


COPY = ARRAY / (0.8 * HBM)  # From HBM to VMEM.


def test_a_copy_between_memories_runs_beside_a_product():
    found = time(PARAMETERS + copy("s") + dot("d", "p", "q") + copied("c", "s"))
    assert found.seconds == pytest.approx(PRODUCT)
    assert found.copies == 0


def test_copies_wait_for_each_other_and_are_waited_for():
    lines = copy("s") + copy("t", "q") + copied("c", "s") + copied("e", "t") + negate("n")
    found = time(PARAMETERS + lines)
    assert found.seconds == pytest.approx(2 * COPY + NEGATE)
    assert (found.copies, dict(found.exposed)) == (pytest.approx(2 * COPY), {})


def test_copies_and_collectives_run_at_once():
    lines = copy("c") + start("s") + done("g", "s") + copied("e", "c")
    assert time(PARAMETERS + CUT + lines).seconds == pytest.approx(max(COPY, GATHER))


@pytest.mark.parametrize(("cycles", "is_used"), [(1_000_000, True), (1, False), (2**63 - 1, None)])
def test_cycles_of_the_code_count_for_products_alone(cycles, is_used):
    config = f', backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    found = time(PARAMETERS + dot("d", "p", "q", end=config))
    roofline = 2 * N**3 / PEAK  # Never faster than that.
    expected = {True: cycles / CLOCK, False: roofline, None: PRODUCT}[is_used]
    assert found.seconds == found.matmul == pytest.approx(expected)
    elementwise = negate("n").rstrip("\n") + config
    assert time(PARAMETERS + elementwise).seconds == pytest.approx(NEGATE)


def test_without_a_clock_cycles_say_nothing():
    chip = dataclasses.replace(CHIP, clock=None)
    config = ', backend_config={"window_config":{"estimated_cycles":"1000000"}}'
    assert time(PARAMETERS + dot("d", "p", "q", end=config), chip=chip).seconds == pytest.approx(
        PRODUCT
    )


def test_a_chip_of_two_devices_gives_each_half_its_peaks():
    chip = get_chip("tpu7x")
    assert chip.devices == 2
    found = time(PARAMETERS + dot("d", "p", "q") + negate("n"), chip=chip)
    assert found.matmul == pytest.approx(2 * N**3 / (0.94 * 2307e12 / 2))  # Google's page.
    assert found.other == pytest.approx(2 * ARRAY / (0.8 * 7380e9 / 2))


def test_a_kernel_takes_the_cost_that_its_author_gave():
    """Where its code cannot be read: tests/cost_model/test_instruction_times.py has the others."""
    flops = 10**12
    config = f'{{"custom_call_config":{{"cost_estimate":{{"flops":"{flops}"}}}}}}'
    lines = PARAMETERS + (
        f'  %k = bf16[{N},{N}] custom-call(%p, %q), custom_call_target="tpu_custom_call", '
        f"backend_config={config}"
    )
    found = time(lines)
    assert found.seconds == found.matmul == pytest.approx(flops / (0.78 * PEAK))
    # One without is as fast as its bytes.
    found = time(lines.split(", backend_config")[0])
    assert found.seconds == found.matmul == pytest.approx(3 * ARRAY / (0.8 * HBM))


FUSED = f"""%fused (x.5: bf16[{N},{N}]) -> bf16[{N},{N}] {{
  %x.5 = bf16[{N},{N}] parameter(0)
  %h.5 = bf16[{N},{N}] dot(%x.5, %x.5), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %n.5 = bf16[{N},{N}] negate(%h.5)
}}
"""


def test_a_fusion_with_a_product_is_a_product():
    lines = f"{PARAMETERS}  %f = bf16[{N},{N}] fusion(%p), kind=kOutput, calls=%fused"
    found = time(lines, FUSED)
    assert found.seconds == found.matmul == pytest.approx(PRODUCT)
    assert found.other == 0


def test_what_is_never_waited_for_ends_with_the_program():
    found = time(PARAMETERS + negate("n") + copy("s"))
    assert found.seconds == pytest.approx(NEGATE + COPY)


HOST = 16e9  # The link of v4 to its host, in either direction.


def test_copies_to_the_host_take_its_link_which_has_two_directions():
    there = f"(bf16[{N},{N}]{{1,0:S(5)}}, bf16[{N},{N}]{{1,0}}, u32[]{{:S(2)}})"
    back = f"(bf16[{N},{N}]{{1,0}}, bf16[{N},{N}]{{1,0:S(5)}}, u32[]{{:S(2)}})"
    lines = f"  %h = bf16[{N},{N}]{{1,0:S(5)}} parameter(2)\n"
    lines += f"  %s = {there} copy-start(%p)\n  %t = {back} copy-start(%h)\n"
    lines += f"  %c = bf16[{N},{N}]{{1,0:S(5)}} copy-done(%s)\n"
    lines += f"  %e = bf16[{N},{N}]{{1,0}} copy-done(%t)\n"
    found = time(PARAMETERS + lines)
    assert found.seconds == found.copies == pytest.approx(ARRAY / HOST)
    # Two in one direction follow each other.
    twice = lines.replace("%t = " + back + " copy-start(%h)", "%t = " + there + " copy-start(%q)")
    twice = twice.replace("%e = bf16[4096,4096]{1,0}", "%e = bf16[4096,4096]{1,0:S(5)}")
    assert time(PARAMETERS + twice).seconds == pytest.approx(2 * ARRAY / HOST)
