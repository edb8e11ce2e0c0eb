"""The k-th largest score of every expert over a sample, exact, in memory for k scores.

The threshold of an expert is the score of the k-th best of a sample's N tokens, k = N c / E: the
largest score that k tokens reach, and so the one at which the expert takes the share c / E, as it
does in a pool of all these tokens. Nothing is interpolated. Tokens that tie with the k-th are all
taken, where a pool would take only some of them.
"""

from collections.abc import Sequence

import numpy as np

from moe_jax.routing.capacity import expert_choice_capacity


class TopScores:
    """Collects the largest scores of every expert in every layer, from a sample in parts.

    Args:
        capacity_factor: c, the mean number of experts per token.
        tokens: the largest number of tokens that the sample may have.
        experts: number of experts, E.

    Raises:
        UserError: if the experts would take no token at all, or more than there are.
    """

    def __init__(self, capacity_factor: float, tokens: int, experts: int):
        self._capacity_factor, self._tokens, self._experts = capacity_factor, tokens, experts
        self._kept = expert_choice_capacity(tokens, capacity_factor, experts)
        self._parts: list[np.ndarray] = []

    def add(self, scores_LET: np.ndarray) -> None:
        """Adds the scores of T tokens, [L, E, T]; tokens with a score of -1 do not count."""
        self._parts.append(scores_LET)
        # Sorted out in large pieces, which costs a constant time per token.
        if sum(part.shape[2] for part in self._parts) >= 3 * self._kept:
            self._parts = [self.largest()]

    def largest(self) -> np.ndarray:
        """Returns the scores that can still matter, unsorted [L, E, at most k of all tokens]."""
        scores_LET = np.concatenate(self._parts, axis=2)
        excess = scores_LET.shape[2] - self._kept
        return np.partition(scores_LET, excess, axis=2)[..., excess:] if excess > 0 else scores_LET

    def padded(self) -> np.ndarray:
        """Returns `largest`, filled up to k scores with -1, for processes to exchange."""
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
        """Returns the k-th largest scores, [L, E], and k = N c / E, rounded down.

        Args:
            tokens: the number of tokens that were added, N.

        Raises:
            UserError: if k is 0.
        """
        assert tokens <= self._tokens
        capacity = expert_choice_capacity(tokens, self._capacity_factor, self._experts)
        scores_LET = np.sort(self.largest(), axis=2)
        return scores_LET[..., scores_LET.shape[2] - capacity], capacity
