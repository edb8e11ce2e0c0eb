"""Parsing of HLO text."""

import pytest

from moe_jax.errors import UserError
from moe_jax.hlo.parser import parse_module
from moe_jax.hlo.shape import ArrayShape

MODULE = """HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}, \
num_partitions=4, replica_count=2

FileNames
1 "some/file.py"

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}, execution_thread="sparsecore"

ENTRY %main.7_spmd (p: f32[8,128]) -> (f32[8,128], /*index=1*/bf16[8]) {
  %p = f32[8,128]{1,0:T(8,128)} parameter(0), sharding={devices=[4,1]<=[4]}
  %kernel = (bf16[8]{0:T(256)S(1)}, (s32[2]{0:S(4)}, token[]), /*index=2*/pred[]) \
custom-call(%p, /*index=1*/%p), custom_call_target="tpu_custom_call", \
metadata={op_name="jit(f)/\\"odd\\", {name" source_file="a b.py" source_line=3}, \
frontend_attributes={kernel_metadata={
 "shape": "} (",
 "rows": 4
}}, control-predecessors={%p, %later}, backend_config={"custom_call_config":\
{"body":"TUzvU{","cost_estimate":{"flops":"12"}},"window_config":{"estimated_cycles":"77"}}
  %later = f32[8,128]{1,0:T(8,128)S(5)} reduce(%kernel, %p), dimensions={0,1}, to_apply=%add, \
backend_config={"window_config":{"estimated_cycles":"9223372036854775807"}}
  %element = bf16[8]{0:T(256)S(1)} get-tuple-element(%kernel), index=0, backend_config=plain text
  ROOT %out = (f32[8,128]{1,0:T(8,128)}, bf16[8]{0}) tuple(f32[8,128]{1,0} %p, bf16[8]{0} %element)
}
"""


@pytest.fixture(scope="module")
def module():
    return parse_module(MODULE)


def test_the_header_and_the_computations(module):
    assert (module.name, module.is_scheduled, module.entry) == ("jit_f", True, "main.7_spmd")
    assert (module.num_partitions, module.num_replicas, module.num_devices) == (4, 2, 8)
    assert list(module.computations) == ["add", "main.7_spmd"]


def test_instructions_stand_in_the_order_of_the_schedule(module):
    entry = module.computations[module.entry]
    assert [i.name for i in entry.instructions] == ["p", "kernel", "later", "element", "out"]
    assert entry.root.name == "out"
    assert entry.root.operands == ("p", "element")  # Written with their shapes.
    assert entry.position["later"] == 2
    assert [user.name for user in entry.users["p"]] == ["kernel", "later", "out"]
    assert module.computations["add"].parameters[1].name == "b"


def test_attributes_over_several_lines_with_quotes_and_brackets(module):
    kernel = module.computations[module.entry].by_name["kernel"]
    assert kernel.op_name == 'jit(f)/\\"odd\\", {name'
    assert kernel.metadata["source_file"] == "a b.py"
    assert kernel.metadata["source_line"] == "3"
    assert kernel.operands == ("p", "p")
    assert kernel.custom_call_target == "tpu_custom_call"
    assert kernel.config("custom_call_config", "cost_estimate") == {"flops": "12"}
    assert kernel.config("custom_call_config", "absent", "deeper") is None
    assert kernel.line == 14


def test_what_the_compiler_does_not_know_has_no_cycles(module):
    entry = module.computations[module.entry]
    assert entry.by_name["kernel"].estimated_cycles == 77
    assert entry.by_name["later"].estimated_cycles is None
    assert entry.by_name["element"].estimated_cycles is None
    assert entry.by_name["element"].backend_config == "plain text"


def test_shapes_with_memory_spaces_tuples_and_tokens(module):
    kernel = module.computations[module.entry].by_name["kernel"]
    assert kernel.shape == (
        ArrayShape("bf16", (8,), 1, padded_dims=(256,)),
        (ArrayShape("s32", (2,), 4), ArrayShape("token", ())),
        ArrayShape("pred", ()),
    )
    assert kernel.bytes == 8 * 2 + 2 * 4 + 0 + 1
    assert module.computations[module.entry].by_name["later"].arrays[0].memory_space == 5


def test_called_computations_of_every_form():
    text = """HloModule m
%f () -> f32[] {
  ROOT %c = f32[] constant(1)
}
ENTRY %e () -> f32[] {
  %t = pred[] constant(true)
  %a = f32[] conditional(%t), true_computation=%f, false_computation=%f
  %b = f32[] conditional(%t), branch_computations={%f, %f}
  %d = f32[] fusion(), kind=kLoop, calls=%f
  ROOT %g = f32[] custom-call(), custom_call_target="x", called_computations={%f}
}
"""
    entry = parse_module(text).computations["e"]
    assert [i.called for i in entry.instructions] == [(), ("f",), ("f",), ("f",), ("f",)]


def test_names_without_percent_signs():
    text = "HloModule m\n\nENTRY e {\n  c = s32[] constant(-3)\n  ROOT d = s32[] negate(c)\n}\n"
    entry = parse_module(text).computations["e"]
    assert entry.root.operands == ("c",)
    assert entry.by_name["c"].literal == "-3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 should begin with HloModule"),
        ("{'not': 'hlo'}", "line 1 should begin with HloModule"),
        ("HloModule m\n\nENTRY %e () -> f32[] {\n  nonsense\n}\n", "line 4: not an instruction"),
        ("HloModule m\nENTRY %e () -> f32[] {\n  %a = f32[] what\n}\n", "line 3: a: no opcode"),
        (
            "HloModule m\nENTRY %e () -> f32[] {\n  %a = zz9[2] add()\n}\n",
            "line 3: a: not an element type",
        ),
        ("HloModule m\nENTRY %e () -> f32[] {\n  %a = ? add()\n}\n", "line 3: a: no shape"),
        ("HloModule m\nENTRY %e () -> f32[] {\n  %a = f32[] constant(1)\n", "ends inside .*'e'"),
        (
            "HloModule m\nENTRY %e () -> f32[] {\n  %a = f32[] constant(1\n}\n",
            "line 3: .* not closed",
        ),
    ],
)
def test_what_is_no_hlo_is_refused_with_its_line(text, message):
    with pytest.raises(UserError, match=message):
        _ = [i.bytes for _, i in parse_module(text).walk()]


def test_a_name_that_is_not_defined_is_an_error():
    text = "HloModule m\nENTRY %e () -> f32[] {\n  ROOT %a = f32[] negate(%gone)\n}\n"
    module = parse_module(text)
    entry = module.computations["e"]
    with pytest.raises(UserError, match="line 3: operand 0 of a is not in e"):
        entry.operand(entry.root)
    with pytest.raises(UserError, match="'f' is called but not defined"):
        module.computation("f")
