"""Thresholds lie between the k-th largest score and the next, as numpy's quantiles say."""

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.routing.top_scores import TopScores

LAYERS, EXPERTS = 2, 4


def draw(tokens, values=None, seed=0):
    """Draws scores [L, E, T]; from a few values only, if given, so that most of them tie."""
    random = np.random.default_rng(seed)
    shape = (LAYERS, EXPERTS, tokens)
    drawn = random.random(shape) if values is None else random.integers(0, values, shape) / values
    return drawn.astype(np.float32)


def collect(scores, sizes, capacity_factor, padding=0):
    top = TopScores(capacity_factor, scores.shape[2] + padding, EXPERTS)
    for part in np.split(scores, np.cumsum(sizes), axis=2):
        top.add(part)
    if padding:
        top.add(np.full((LAYERS, EXPERTS, padding), -1.0, np.float32))
    return top


@pytest.mark.parametrize("values", [None, 5], ids=["distinct", "ties"])
@pytest.mark.parametrize("capacity_factor", [0.25, 1.0, 3.0, 4.0])
def test_thresholds_are_numpys_quantiles(capacity_factor, values):
    """The k-th largest score is the k / N quantile of the negated scores, not interpolated."""
    scores = draw(1024, values)
    top = collect(scores, [10, 500, 3], capacity_factor, padding=100)
    thresholds_LE, k = top.thresholds(1024)
    assert k == 1024 * capacity_factor / EXPERTS
    kth = -np.quantile(-scores, k / 1024, axis=2, method="inverted_cdf")
    reached = (scores >= thresholds_LE[..., None]).sum(2)
    np.testing.assert_array_equal(reached, (scores >= kth[..., None]).sum(2))
    assert (thresholds_LE <= kth).all()
    if values is None:
        assert (reached == k).all()
        following = np.sort(np.pad(scores, ((0, 0), (0, 0), (1, 0))), axis=2)[..., -int(k) - 1]
        np.testing.assert_allclose(thresholds_LE, (kth + following) / 2, rtol=1e-6)
    else:
        assert ((scores > kth[..., None]).sum(2) < k).all()


def test_the_number_of_tokens_is_rounded_down_to_whole_tokens_of_an_expert():
    scores = draw(103)
    thresholds_LE, k = collect(scores, [], 1.5).thresholds(103)
    assert k == 38  # 103 x 1.5 / 4 = 38.6
    assert ((scores >= thresholds_LE[..., None]).sum(2) == 38).all()


def test_memory_is_bounded_by_what_can_still_matter():
    top = TopScores(1.0, 64 * 1000, EXPERTS)
    for part in range(1000):
        top.add(draw(64, seed=part))
    assert top.largest().shape == (LAYERS, EXPERTS, 16_001)


def test_samples_of_several_processes_are_one_sample():
    scores = draw(600)
    whole = collect(scores, [], 2.0)
    parts = [TopScores(2.0, 600, EXPERTS) for _ in range(2)]
    for part, of_process in zip(parts, np.split(scores, [20], axis=2), strict=True):
        part.add(of_process)
    padded = [part.padded() for part in parts]
    assert {array.shape for array in padded} == {(LAYERS, EXPERTS, 301)}
    merged, k = whole.merged(padded).thresholds(600)
    expected, same = whole.thresholds(600)
    assert k == same == 300
    np.testing.assert_array_equal(merged, expected)


def test_an_expert_without_a_token_is_refused():
    with pytest.raises(UserError, match="capacity is zero"):
        TopScores(0.01, 64, EXPERTS)
    with pytest.raises(UserError, match="capacity is zero"):
        collect(draw(100), [], 0.1, padding=10).thresholds(30)
