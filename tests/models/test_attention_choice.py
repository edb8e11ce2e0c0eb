"""Which attention runs where."""

import pytest
import tiny

from moe_jax.models.attention_choice import choose_attention

HALF = {"compute_dtype": "bfloat16"}


@pytest.mark.parametrize(
    ("settings", "platform", "length", "expected"),
    [
        ({}, "tpu", 2048, "kernel (in tiles)"),
        ({"position": "rotary"}, "tpu", 100, "kernel (in tiles)"),
        ({}, "cpu", 2048, "plain (the kernel is for TPU)"),
        ({}, "gpu", 2048, "plain (the kernel is for TPU)"),
        ({"attention": "kernel"}, "cpu", 2048, "kernel (interpreted, which is slow)"),
        ({"attention": "plain"}, "tpu", 2048, "plain (Model.attention)"),
        ({"head_dim": 128} | HALF, "tpu", 8192, "kernel (in tiles)"),
        ({"head_dim": 128} | HALF, "tpu", 8320, "plain (rows of 8320 positions are too long for"),
        # On the chip a head of 64 takes the place of one of 128.
        ({"head_dim": 64} | HALF, "tpu", 8320, "plain (rows of 8320 positions are too long for"),
        ({"head_dim": 64}, "tpu", 4096, "kernel (in tiles)"),
        ({"head_dim": 64}, "tpu", 4224, "plain (rows of 4224 positions are too long for the ker"),
        # The last of 32 buckets begins at 113 for 128, at 129 for 148, at 131 for 150.
        ({"relative_max_distance": 148}, "tpu", 2048, "kernel (in tiles)"),
        ({"relative_max_distance": 150}, "tpu", 2048, "plain (Model.relative_max_distance = 150:"),
        (
            {"relative_max_distance": 150, "position": "rotary"},
            "tpu",
            2048,
            "kernel (in tiles)",
        ),
        (
            {"relative_max_distance": 150, "attention": "kernel"},
            "cpu",
            2048,
            "plain (Model.relative_max_distance = 150:",
        ),
    ],
    ids=str,
)
def test_the_kernel_runs_on_tpu_where_it_fits(settings, platform, length, expected):
    config = tiny.config(**{"relative_buckets": 32, "relative_max_distance": 128} | settings)
    assert str(choose_attention(config, platform, length)).startswith(expected)
