"""Plain numpy versions of the papers' equations, for tests to compare with.

Written from the papers, with loops where loops say it best, in float64, without anything of
`moe_jax`. Shapes follow `moe_jax.types`: P pools, N tokens in a pool, E experts, D width.
"""

import math
from fractions import Fraction

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis (Zhou et al. 2022, section 3.2: over experts)."""
    exp = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def capacity(tokens: int, capacity_factor: float, experts: int) -> int:
    """Returns k = floor(n c / e) (Zhou et al. 2022, eq. 1), exactly: c is read as a decimal."""
    return math.floor(tokens * Fraction(str(capacity_factor)) / experts)


def expert_choice(
    probability_PNE: np.ndarray, mask_PN: np.ndarray, capacity_factor: float
) -> list[list[list[int]]]:
    """Returns [pool][expert] -> the tokens it takes, best first (Zhou et al. 2022, eq. 2).

    Only real tokens compete, and only they count in k; a pool with a real token has k >= 1.
    """
    choices = []
    for probability_NE, mask_N in zip(probability_PNE, mask_PN, strict=True):
        real = [n for n, is_real in enumerate(mask_N) if is_real]
        k = capacity(len(real), capacity_factor, probability_NE.shape[1])
        if real:
            k = max(k, 1)
        choices.append(
            [sorted(real, key=lambda n: (-score_N[n], n))[:k] for score_N in probability_NE.T]
        )
    return choices


def kth_scores(probability_PNE: np.ndarray, choices: list[list[list[int]]]) -> np.ndarray:
    """Returns every expert's lowest chosen score [E], averaged over pools with a real token."""
    lowest = [
        [min(float(probability_NE[n, e]) for n in taken) for e, taken in enumerate(by_expert)]
        for probability_NE, by_expert in zip(probability_PNE, choices, strict=True)
        if by_expert[0]
    ]
    return np.mean(lowest, axis=0)


def chosen_mask(choices: list[list[list[int]]], tokens: int) -> np.ndarray:
    """Returns [P, N, E], true where an expert takes the token."""
    chosen = np.zeros((len(choices), tokens, len(choices[0])), bool)
    for p, by_expert in enumerate(choices):
        for e, taken in enumerate(by_expert):
            for n in taken:
                chosen[p, n, e] = True
    return chosen


def expert_threshold(
    probability_PNE: np.ndarray, threshold_E: np.ndarray, mask_PN: np.ndarray
) -> np.ndarray:
    """Returns [P, N, E], true where a real token reaches the expert's threshold."""
    chosen = np.zeros(probability_PNE.shape, bool)
    for p, n, e in np.ndindex(*chosen.shape):
        chosen[p, n, e] = bool(mask_PN[p, n]) and probability_PNE[p, n, e] >= threshold_E[e]
    return chosen


def assignment_table(assignment, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads an assignment of either layout by its attributes' names.

    Returns:
        [P, N, E] how often the expert takes the token (more than once is an error), and the
        same shape in float64, the sum of the combine weights.
    """
    if hasattr(assignment, "filled_PEC"):
        filled_PEC = np.asarray(assignment.filled_PEC)
        pools, experts, _ = filled_PEC.shape
        entries = [
            (p, assignment.token_index_PEC[p, e, c], e, assignment.weight_PEC[p, e, c])
            for p, e, c in zip(*np.nonzero(filled_PEC), strict=True)
        ]
    else:
        chosen_PNK = np.asarray(assignment.chosen_PNK)
        pools, experts = chosen_PNK.shape[0], assignment.num_experts
        entries = [
            (p, n, assignment.expert_index_PNK[p, n, k], assignment.weight_PNK[p, n, k])
            for p, n, k in zip(*np.nonzero(chosen_PNK), strict=True)
        ]
    count = np.zeros((pools, tokens, experts), int)
    weight = np.zeros((pools, tokens, experts))
    for p, n, e, value in entries:
        count[p, int(n), int(e)] += 1
        weight[p, int(n), int(e)] += float(value)
    return count, weight


def moe_layer(chosen_PNE: np.ndarray, weight_PNE: np.ndarray, x_PND: np.ndarray, expert):
    """Returns y[p, n] = sum over the experts that take it of w * expert(e, x[p, n]) (eq. 4)."""
    y_PND = np.zeros(x_PND.shape)
    for p, n, e in zip(*np.nonzero(chosen_PNE), strict=True):
        y_PND[p, n] += weight_PNE[p, n, e] * expert(e, x_PND[p, n].astype(np.float64))
    return y_PND


def pools(kind: str, rows: int, batch: int, length: int) -> list[list[tuple[int, int]]]:
    """Returns the pools as lists of (row, position); `rows` = 0 means all rows."""
    rows = rows or batch
    groups = [range(first, first + rows) for first in range(0, batch, rows)]
    if kind == "sequence":
        return [[(b, s) for s in range(length)] for b in range(batch)]
    if kind == "position":
        return [[(b, s) for b in group] for group in groups for s in range(length)]
    return [[(b, s) for b in group for s in range(length)] for group in groups]


def mean_kth_score(statistics):
    """Returns the mean over pools of the k-th scores, from what expert choice hands back."""
    return statistics["kth_score_sum"] / statistics["pools"][..., None]
