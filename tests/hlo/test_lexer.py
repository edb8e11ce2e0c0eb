"""Lists of HLO text."""

from moe_jax.hlo.lexer import split_at_commas


def test_splits_only_at_commas_outside_brackets_and_quotes():
    assert split_at_commas('a={1,2}, b="x, y", /*index=5*/c=(f[1,2], g), d') == [
        "a={1,2}",
        'b="x, y"',
        "c=(f[1,2], g)",
        "d",
    ]
