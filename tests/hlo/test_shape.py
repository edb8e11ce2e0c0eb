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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f32[10,6,2048]{2,1,0:T(8,128)}", 4 * 10 * 8 * 2048),
        ("bf16[10,6,2048]{2,1,0:T(8,128)(2,1)S(1)}", 2 * 10 * 8 * 2048),
        # The dimension that is most minor comes first in a layout.
        ("f32[6,2000]{0,1:T(8,128)}", 4 * 128 * 2000),
        ("s32[100]{0:T(1024)}", 4 * 1024),
        ("bf16[8,128]{1,0}", 2 * 8 * 128),
        ("f32[]{:T(128)}", 4),
    ],
)
def test_bytes_with_the_padding_of_tiles(text, expected):
    assert parse_shape(text).padded_bytes == expected
