"""The report and its page from the compiler's output, by hand."""

import dataclasses
import json

import pytest

from moe_jax import experiments
from moe_jax.config_source import ConfigSource
from moe_jax.cost_model.communication_bounds import CommunicationBound
from moe_jax.cost_model.topologies import parse_topology
from moe_jax.errors import UserError
from moe_jax.pods import markdown
from moe_jax.pods.compiler import CompilerOutput
from moe_jax.pods.report import GIB, build_report
from moe_jax.pods.sweep import Trial

N = 4096
PROGRAM = f"""HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}}
%two (x: bf16[{N},{N}]) -> (bf16[{N},{N}], bf16[{N},{N}]) {{
  %x = bf16[{N},{N}] parameter(0)
  %r1 = bf16[{N},{N}] all-reduce(%x), replica_groups=[4,2]<=[2,4]T(1,0), to_apply=%add
  %r2 = bf16[{N},{N}] all-reduce(%x), replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, to_apply=%add
  ROOT %t2 = (bf16[{N},{N}], bf16[{N},{N}]) tuple(%r1, %r2)
}}
ENTRY %main (p: bf16[{N},{N}]) -> bf16[{N},{N}] {{
  %p = bf16[{N},{N}] parameter(0)
  %d = bf16[{N},{N}] dot(%p, %p), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}, \
metadata={{op_name="jit(step)/experts/dot"}}
  %e = bf16[{N},{N}] all-to-all(%d), replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, dimensions={{0}}
  %z = bf16[] constant(0)
  %zeros = bf16[{N},{N}] broadcast(%z), dimensions={{}}
  %part = bf16[{N // 8},{N}] slice(%p), slice={{[0:{N // 8}], [0:{N}]}}
  %i = s32[] constant(4)
  %own = bf16[{N},{N}] dynamic-update-slice(%zeros, %part, %i, %i)
  %g = bf16[{N},{N}] all-reduce(%own), replica_groups={{{{0,1,2,3,4,5,6,7}}}}, to_apply=%add
  %f = (bf16[{N},{N}], bf16[{N},{N}]) fusion(%e), kind=kCustom, calls=%two
  ROOT %h = bf16[{N},{N}] get-tuple-element(%f), index=0
}}
"""
ARRAY = 2 * N * N
BUFFERS = f"""allocation 0: size {2 * int(GIB)}, parameter 0, shape |f32[8]| at ShapeIndex {{}}:
allocation 1: size {3 * int(GIB)}, preallocated-temp:
 value: <5 d @0> (size={int(GIB)},offset=0): bf16[{N},{N}]
"""
LIVE = f"  Live ranges at 7 (peak):\n    d{{}}: {int(GIB)} bytes (cumulative: 1 bytes)\n"
COMPILED = CompilerOutput(
    mesh={"slice": 1, "data": 1, "fsdp": 2, "expert": 4, "tensor": 1},
    coordinates=tuple((x, y, 0) for x in range(2) for y in range(4)),
    argument_bytes={"parameters": int(GIB), "optimiser": int(GIB) // 2, "batch": 64},
    bounds=(
        CommunicationBound("all-to-all", ("expert",), 1e7, "tokens to experts and back"),
        CommunicationBound("all-to-all", ("expert",), 2e7, "more"),
        CommunicationBound("reduce-scatter", ("fsdp",), 5e6, "gradients"),
    ),
    program=PROGRAM,
    buffer_assignment=BUFFERS,
    live_ranges=LIVE,
    exceeded=None,
    warnings=("something",),
    seconds=9.0,
    full=False,
)
TOPOLOGY = parse_topology("v5e:2x4")
LINK, PEAK, HBM = 45e9, 197e12, 819e9
BINDINGS = ["Data.batch_size=16", "Data.sequence_length=128"]
TOKENS = 16 * 128 / 8
FILES = ["runs/pretrain.gin", "models/tiny_8e.gin", "routers/gshard_top2.gin"]
DESCRIBED = experiments.load(ConfigSource(FILES, BINDINGS))

PRODUCT = 2 * N**3 / (0.94 * PEAK)
ALL_TO_ALL = ARRAY * 4 / (4 * LINK)  # Lines of four.
AS_ALL_REDUCE = 2 * ARRAY * 7 / 8 / (2 * LINK)  # Lines along both dimensions.
FSDP, EXPERT = 2 * ARRAY / 2 / LINK, 2 * ARRAY * 3 / 4 / LINK
COLLECTIVES = ALL_TO_ALL + AS_ALL_REDUCE + FSDP + EXPERT
BYTES = ARRAY + 4 * ARRAY / 8  # The zeros; a part is read and written twice.
OTHER = BYTES / (0.8 * HBM)


def read(**changes):
    return build_report(DESCRIBED, TOPOLOGY, dataclasses.replace(COMPILED, **changes))


def test_seconds_and_what_follows_from_them():
    found = read().as_dict(1e12)
    json.loads(json.dumps(found, allow_nan=False))
    seconds = PRODUCT + OTHER + COLLECTIVES
    assert found["step_seconds"] == pytest.approx(seconds, rel=1e-4)
    assert found["step_seconds_high"] == pytest.approx(seconds + ALL_TO_ALL, rel=1e-4)
    assert found["seconds"] == {
        "products": pytest.approx(PRODUCT),
        "other": pytest.approx(OTHER, rel=1e-3),
        "copies": 0,
        "collectives": pytest.approx(COLLECTIVES),
    }
    assert found["flops"] == 2 * N**3
    flops = DESCRIBED.train_flops_per_token() * TOKENS
    assert found["model_flops"] == flops
    assert found["mfu"] == pytest.approx(flops / PEAK / found["step_seconds"])
    assert found["mfu_low"] == pytest.approx(flops / PEAK / found["step_seconds_high"])
    speed = TOKENS / found["step_seconds"]
    assert found["tokens_per_second_per_chip"] == pytest.approx(speed)
    assert found["chip_days"] == pytest.approx(1e12 / speed / 24 / 3600)
    assert found["token_budget"] == 1e12
    assert found["parts"]["experts"] == pytest.approx(PRODUCT)
    assert found["parts"]["the rest"] == pytest.approx(OTHER, rel=1e-3)


def test_memory_and_whether_it_fits():
    found = read().as_dict(1e12)
    assert (found["fits"], found["hbm_gib"], found["hbm_limit_gib"]) == (True, 5.0, 15.75)
    assert found["memory_bytes"] == {
        **COMPILED.argument_bytes,
        "experts, while the step runs": GIB,
        "packing, while the step runs": 2 * GIB,
        "padding and results": GIB / 2 - 64,
        "heap": 3 * GIB,
    }
    assert [row["what"] for row in found["largest"]] == [
        "packing, while the step runs",
        "parameters",
        "experts, while the step runs",
    ]
    size = int(10.75 * GIB)
    at_limit = BUFFERS.replace(f"size {2 * int(GIB)}", f"size {size + 2 * int(GIB)}")
    assert read(buffer_assignment=at_limit).fits
    assert not read(
        buffer_assignment=at_limit.replace(str(size + 2 * int(GIB)), str(size + 2**31 + 1))
    ).fits


def test_the_compiler_knows_best_whether_it_fits():
    assert not read(exceeded="CompileTimeHbmOom: ...").fits
    with pytest.raises(UserError, match="ran out of memory: a b"):
        read(program="", exceeded="a\nb")


def test_collectives_by_kind_and_axis_beside_their_bounds():
    rows = {(r["kind"], r["axis"]): r for r in read().as_dict(1e12)["collectives"]}
    assert {key: (r["count"], r["bytes"], r["bound_bytes"]) for key, r in rows.items()} == {
        ("all-to-all", "expert"): (1, ARRAY, 3e7),
        ("all-gather as all-reduce", "fsdp+expert"): (1, ARRAY, 0),
        ("all-reduce", "fsdp"): (1, ARRAY, 0),
        ("all-reduce", "expert"): (1, ARRAY, 0),
        ("reduce-scatter", "fsdp"): (0, 0, 5e6),
    }
    assert rows["all-to-all", "expert"]["exposed"] == pytest.approx(ALL_TO_ALL)
    assert rows["all-to-all", "expert"]["seconds"] == pytest.approx(ALL_TO_ALL)
    # Both of one fusion are waited for once.
    exposed = sum(row["exposed"] for row in rows.values())
    assert exposed == pytest.approx(COLLECTIVES)


def test_a_collective_counts_as_often_as_it_runs():
    group = "replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}"
    once = f"  %e = bf16[{N},{N}] all-to-all(%d), {group}\n"
    assert once in PROGRAM
    called = f"%k (y: bf16[{N},{N}]) -> bf16[{N},{N}] {{\n  %y = bf16[{N},{N}] parameter(0)\n"
    called += once.replace("%e", "ROOT %e.1").replace("%d", "%y") + "}\n"
    twice = f"  %c = bf16[{N},{N}] call(%d), to_apply=%k\n"
    twice += f"  %e = bf16[{N},{N}] call(%c), to_apply=%k\n"
    text = PROGRAM.replace(once, twice).replace("ENTRY", called + "ENTRY")
    (row,) = [row for row in read(program=text).collectives if row.kind == "all-to-all"]
    assert (row.count, row.bytes) == (2, 2 * ARRAY)
    assert (row.seconds, row.exposed) == pytest.approx((2 * ALL_TO_ALL,) * 2)


def test_omissions_are_warned_of():
    found = read()
    assert found.warnings == ("something",)
    two = build_report(DESCRIBED, parse_topology("2*v5e:2x2"), COMPILED)
    assert any("between slices" in warning for warning in two.warnings)
    assert "cycles" not in found.method
    assert "no code was generated" in found.method
    assert "cycles" in read(full=True).method
    assert "no code" not in read(full=True).method


def test_two_devices_a_chip():
    chip = parse_topology("tpu7x:2x2x2")
    mesh = {**COMPILED.mesh, "fsdp": 2, "expert": 8}
    places = tuple((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1) for _ in (0, 1))
    changed = dataclasses.replace(COMPILED, mesh=mesh, coordinates=places)
    found = build_report(DESCRIBED, chip, changed)
    assert found.peak == 2307e12 / 2
    assert found.tokens == 16 * 128 / 16
    speed = 2 * found.tokens / found.fastest.seconds
    assert found.tokens_per_second_per_chip == pytest.approx(speed)
    assert 0 < found.utilisation(found.fastest) < 1


def test_the_page_has_the_figures():
    found = read()
    text = markdown.markdown_page(
        found, "moe-jax compile", 1e12, [Trial("refused | one", (), None, "a\nb|c")]
    )
    lines = text.splitlines()
    assert lines[0] == "# v5e:2x4: fsdp 2 x expert 4"
    assert "- Fits: 5.00 of 15.75 GiB a device" in lines
    assert "- Warning: something" in lines
    assert "| parameters | 1.00 |" in lines
    assert "| experts * | 1.00 |" in lines
    assert "| packing * | 2.00 |" in lines
    assert "| padding and results | 0.50 |" in lines
    start = lines.index("| what | GiB |") + 2
    sizes = [float(row.split("|")[2]) for row in lines[start : lines.index("", start)]]
    assert sizes == sorted(sizes, reverse=True)
    assert f"| matrix products | {PRODUCT * 1e3:.1f} |" in lines
    assert f"| waiting for collectives | {COLLECTIVES * 1e3:.1f} |" in lines
    ms = f"{ALL_TO_ALL * 1e3:.1f}"
    assert f"| all-to-all | expert | 1 | 0.034 | 0.030 | {ms} | {ms} |" in lines
    assert "| reduce-scatter | fsdp | 0 | 0.000 | 0.005 | 0.0 | 0.0 |" in lines
    assert r"| refused \| one | refused | - | - | a b\|c |" in lines
    assert f"- Step: {found.fastest.seconds * 1e3:,.0f} ms" in text
    days = found.chip_days(1e12)
    assert f"1e+12 tokens take {days:,.0f} chip-days ({days / 8:,.1f} days)" in text
    tables = [line.count("|") - line.count(r"\|") for line in lines if line.startswith("|")]
    assert set(tables) == {3, 6, 8}
    assert "Tried" not in markdown.markdown_page(found, "moe-jax compile", 1e12)


def test_the_summary_lists_omissions_of_the_step_time():
    found = dataclasses.replace(
        read(), unknown_loops=("a/loop", "b"), unpriced_kernels=("k", "j", "k")
    )
    lines = markdown.summary_lines(found, 1e12)
    left_out = [line for line in lines if line.startswith("Not in the step time: ")]
    assert (
        "each of 2 loops (a/loop, ...), which runs only for the overflow of unevenly loaded"
        in left_out[0]
    )
    assert "kernels without a cost estimate (j, k)" in left_out[1]
    one = dataclasses.replace(found, unknown_loops=("a/loop",), unpriced_kernels=())
    assert any(
        "time: a loop (a/loop), which runs" in line for line in markdown.summary_lines(one, 1)
    )


def test_a_step_that_does_not_fit_has_no_time():
    found, fits = read(exceeded="HbmOom"), read()
    assert (found.fastest, found.slowest, found.parts) == (None, None, {})
    result, usual = found.as_dict(1e12), fits.as_dict(1e12)
    assert result.keys() == usual.keys()
    of_time = ("step_seconds", "step_seconds_high", "mfu", "mfu_low", "seconds", "chip_days")
    of_time += ("tokens_per_second_per_chip",)
    assert all(result[name] is None and usual[name] is not None for name in of_time)
    known = ("flops", "model_flops", "memory_bytes", "largest", "hbm_gib")
    assert all(result[name] == usual[name] for name in known)
    moved = {(r["kind"], r["axis"]): r for r in result["collectives"]}
    assert all(row["seconds"] is row["exposed"] is None for row in moved.values())
    assert {(r["kind"], r["axis"]): r["bytes"] for r in usual["collectives"]} == {
        key: row["bytes"] for key, row in moved.items()
    }
    text = markdown.markdown_page(found, "moe-jax compile", 1e12)
    assert "- DOES NOT FIT: 5.00 of 15.75 GiB a device" in text
    assert "- The largest: packing, while the step runs 2.00 GiB, parameters 1.00 GiB" in text
    assert not any(word in text for word in ("Step:", "MFU", "Speed:", "chip-days", "## Time"))
    assert "no time is estimated for a step that does not fit" in text
    assert markdown.trial_row(Trial("t", (), found)) == ("t", "no", "5.00", "-", "-")
    trial = Trial("t", (), None, minimum_bytes=int(20 * GIB))
    assert markdown.trial_row(trial) == ("t", "no", "> 20.00", "-", "-")
