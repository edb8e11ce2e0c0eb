"""Batches of prompts: what is padded, with what, and how many shapes there are."""

import numpy as np
import pytest

from moe_jax.evaluation.prompts import prompt_rows


def test_rows_start_with_0_and_are_padded_at_their_ends():
    tokens, length, seed = prompt_rows([[5, 6, 7], [], [9]], [1, 2**32 + 3, 4], shards=1)
    assert tokens.shape == (4, 32)
    np.testing.assert_array_equal(tokens[:, :4], [[0, 5, 6, 7], [0] * 4, [0, 9, 0, 0], [0] * 4])
    assert not tokens[:, 4:].any()
    np.testing.assert_array_equal(length, [4, 1, 2, 0])
    np.testing.assert_array_equal(seed, [1, 3, 4, 0])


@pytest.mark.parametrize(
    ("longest", "padded"), [(31, 32), (32, 48), (48, 64), (95, 96), (96, 128), (700, 768)]
)
def test_few_lengths(longest, padded):
    tokens, _, _ = prompt_rows([[1], [2] * longest], [0, 0], shards=1)
    assert tokens.shape == (2, padded)


@pytest.mark.parametrize(
    ("rows", "shards", "padded"), [(1, 1, 1), (3, 1, 4), (9, 1, 16), (1, 4, 4), (9, 4, 16)]
)
def test_few_numbers_of_rows(rows, shards, padded):
    tokens, length, _ = prompt_rows([[1]] * rows, [0] * rows, shards)
    assert len(tokens) == padded
    assert (length > 0).sum() == rows
