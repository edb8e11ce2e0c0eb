"""The held-out range: about a twentieth of the bytes, for pieces of any sizes."""

import numpy as np
import pytest

from moe_jax.data.sources.holdout_split import choose_range, piece_bytes


def shares(prints, sizes, split):
    """Returns the share of bytes that is held out, counted piece by piece."""
    held = sum(s for p, s in zip(prints, sizes, strict=True) if split.first <= p < split.last)
    return held / sum(sizes)


def draw(sizes, seed=0):
    prints = np.random.default_rng(seed).integers(0, 1 << 62, len(sizes))
    sizes = np.asarray(sizes, np.int64)
    return shares(prints, sizes, choose_range(prints, sizes, 1 << 16))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "sizes",
    [
        [1000] * 100,
        [1000] * 37,
        list(range(1, 500)),
        # Pieces that are longer than all that is to be held out, among short ones.
        [65536] * 3 + [10] * 3000,
        [65536] + [100] * 100,
        np.random.default_rng(3).pareto(1.0, 2000).clip(0, 60) * 1000 + 1,
    ],
    ids=["even", "few", "rising", "long", "one long", "pareto"],
)
def test_a_twentieth_of_the_bytes_is_held_out(sizes, seed):
    assert draw(sizes, seed) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("sizes", [[10, 10], [10, 1000], [1000, 10], [10, 10, 10], [1] * 7])
def test_both_parts_have_something_if_there_are_two_pieces(sizes):
    for seed in range(10):
        assert 0 < draw(sizes, seed) < 1
    assert draw([10, 1000]) < 0.05


def test_a_text_without_others_is_for_training():
    for count in (1, 5):
        prints, sizes = np.full(count, 7), np.full(count, 100)
        split = choose_range(prints, sizes, 256)
        assert shares(prints, sizes, split) == 0
        assert (split.pieces, split.repeated) == (count, count - 1)


def test_repeated_pieces_count_in_full_and_are_said():
    rng = np.random.default_rng(0)
    prints = np.repeat(rng.permutation(10_000)[:200], rng.integers(1, 4, 200)).astype(np.int64)
    sizes = np.full(len(prints), 50)
    split = choose_range(prints, sizes, 256)
    assert shares(prints, sizes, split) == pytest.approx(0.05, abs=0.01)
    assert split.repeated == len(prints) - 200
    assert split.note().startswith(f"{len(prints) - 200} of {len(prints)} pieces of text are")
    assert choose_range(prints[:1], sizes[:1], 256).note() is None


def test_the_order_of_the_pieces_does_not_matter():
    rng = np.random.default_rng(1)
    prints, sizes = rng.permutation(10_000)[:300].astype(np.int64), rng.integers(1, 1000, 300)
    order = rng.permutation(300)
    assert choose_range(prints, sizes, 256) == choose_range(prints[order], sizes[order], 256)


def test_pieces_are_as_many_as_a_small_corpus_has_them():
    assert piece_bytes(2_500_000) == 25_000
    assert piece_bytes(10) == 256
    assert piece_bytes(1 << 40) == 65536
