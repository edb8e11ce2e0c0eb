"""Bytes of shapes."""

import pytest

from moe_jax.hlo.shape import parse_shape


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f32[2,3]{1,0}", 24),
        ("bf16[2,3]", 12),
        ("s4[3]", 2),
        ("u8[3]", 3),
        ("f8e4m3fn[5]", 5),
        ("f8e5m2[5]", 5),
        ("c64[2]", 16),
        ("f32[]{:T(128)}", 4),
        ("s32[<=6]{0}", 24),
        ("f32[0,4]", 0),
    ],
)
def test_bytes_of_element_types(text, expected):
    assert parse_shape(text).bytes == expected
