"""Thresholds of every expert from the scores of a sample, exact, in memory for k of them.

The threshold of an expert is the one at which it takes k of a sample's N tokens, k = N c / E, as it
does in a pool of all these tokens: halfway between the score of its k-th best token and the next
lower one, so that the rounding of another program decides about none of them. Tokens that tie with
the k-th are all taken, where a pool would take only some of them.
"""

from collections.abc import Sequence

import numpy as np

from moe_jax.routing.capacity import expert_choice_capacity


class TopScores:
    """Collects the largest scores of every expert in every layer, given in parts.

    Args:
        capacity_factor: c, the mean number of experts per token.
        tokens: the largest number of tokens that the sample may have.
        experts: number of experts, E.

    Raises:
        UserError: if the experts would take no token at all, or more than there are.
    """

    def __init__(self, capacity_factor: float, tokens: int, experts: int):
        self._capacity_factor, self._tokens, self._experts = capacity_factor, tokens, experts
        self._kept = expert_choice_capacity(tokens, capacity_factor, experts) + 1
        self._parts: list[np.ndarray] = []

    def add(self, scores_LET: np.ndarray) -> None:
        """Adds the scores of T tokens, [L, E, T]; tokens with a score of -1 do not count."""
        self._parts.append(scores_LET)
        # Sorted out in large pieces, which costs a constant time per token.
        if sum(part.shape[2] for part in self._parts) >= 3 * self._kept:
            self._parts = [self.largest()]

    def largest(self) -> np.ndarray:
        """Returns the scores that can still matter, unsorted [L, E, at most k + 1]."""
        scores_LET = np.concatenate(self._parts, axis=2)
        excess = scores_LET.shape[2] - self._kept
        return np.partition(scores_LET, excess, axis=2)[..., excess:] if excess > 0 else scores_LET

    def padded(self) -> np.ndarray:
        """Returns `largest`, filled up to k + 1 scores with -1, for processes to exchange."""
        scores_LET = self.largest()
        missing = self._kept - scores_LET.shape[2]
        return np.pad(scores_LET, ((0, 0), (0, 0), (0, missing)), constant_values=-1.0)

    def merged(self, parts: Sequence[np.ndarray]) -> "TopScores":
        """Returns the scores of several such samples together, given `padded` of each."""
        top = TopScores(self._capacity_factor, self._tokens, self._experts)
        for part in parts:
            top.add(part)
        return top

    def thresholds(self, tokens: int) -> tuple[np.ndarray, int]:
        """Returns the thresholds, [L, E], and k = N c / E, rounded down.

        Args:
            tokens: the number of tokens that were added, N.

        Raises:
            UserError: if k is 0.
        """
        assert tokens <= self._tokens
        capacity = expert_choice_capacity(tokens, self._capacity_factor, self._experts)
        scores_LET = np.sort(self.largest(), axis=2)
        last = scores_LET.shape[2] - capacity
        kth_LE = scores_LET[..., last]
        # No score is below 0, so that every token reaches a threshold between 0 and the least.
        next_LE = np.maximum(scores_LET[..., last - 1], 0.0) if last else np.zeros_like(kth_LE)
        middle_LE = (kth_LE + next_LE) / 2
        return np.where(middle_LE > next_LE, middle_LE, kth_LE), capacity
