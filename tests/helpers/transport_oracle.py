"""Capped expert choice by general-purpose solvers, in float64, without anything of `moe_jax`.

Scores are [E, N], as in the paper's program (Zhou et al. 2022, section 3.3).
"""

import itertools

import numpy as np
import scipy.optimize


def _margins(experts: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the matrices that sum a flat [E, N] over tokens and over experts."""
    over_tokens = np.kron(np.eye(experts), np.ones((1, tokens)))
    over_experts = np.kron(np.ones((1, experts)), np.eye(tokens))
    return over_tokens, over_experts


def best_assignment(score_EN: np.ndarray, k: int, cap: int) -> tuple[float, np.ndarray]:
    """Returns the optimum of the linear program (lambda = 0) and an A that has it."""
    over_tokens, over_experts = _margins(*score_EN.shape)
    result = scipy.optimize.linprog(
        -score_EN.astype(np.float64).ravel(),
        A_ub=over_experts,
        b_ub=np.full(score_EN.shape[1], cap),
        A_eq=over_tokens,
        b_eq=np.full(score_EN.shape[0], k),
        bounds=(0, 1),
        method="highs-ds",  # The simplex method: a vertex, which is whole here.
    )
    assert result.status == 0, result.message
    return -result.fun, result.x.reshape(score_EN.shape)


def entropic_assignment(score_EN: np.ndarray, k: int, cap: int, strength: float) -> np.ndarray:
    """Returns argmax <S, A> + strength * H(A) under the constraints, by sequential programming."""
    score = score_EN.astype(np.float64).ravel()
    over_tokens, over_experts = _margins(*score_EN.shape)
    result = scipy.optimize.minimize(
        lambda a: -a @ score + strength * np.sum(a * np.log(a)),
        np.full(score.size, k / score_EN.shape[1]),
        jac=lambda a: -score + strength * (np.log(a) + 1),
        bounds=[(1e-12, 1)] * score.size,
        constraints=[
            {"type": "eq", "fun": lambda a: over_tokens @ a - k, "jac": lambda _: over_tokens},
            {
                "type": "ineq",
                "fun": lambda a: cap - over_experts @ a,
                "jac": lambda _: -over_experts,
            },
        ],
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-14},
    )
    assert result.success, result.message
    return result.x.reshape(score_EN.shape)


def is_completable(room_N: np.ndarray, k: int, experts: int) -> bool:
    """Whether `experts` can each take k distinct tokens within the room: by trying all ways."""
    if experts == 0:
        return True
    free = np.flatnonzero(room_N)
    for picks in itertools.combinations(free, k):
        rest = room_N.copy()
        rest[list(picks)] -= 1
        if is_completable(rest, k, experts - 1):
            return True
    return False


def choose_in_turn(
    value_EN: np.ndarray, assigned_EN: np.ndarray, k: int, cap: int, mask_N: np.ndarray
) -> np.ndarray:
    """Returns [E, N], true for the k tokens an expert takes, for small cases.

    Experts in turn; each goes for its first wishes, among all sets of k tokens that leave the
    experts after it a way to finish. A token has less value by 0.1 for every place that is missing
    if the experts after it take what they are expected to.
    """
    experts, tokens = value_EN.shape
    room_N = np.where(mask_N, cap, 0)
    taken_EN = np.zeros((experts, tokens), bool)
    for e in range(experts):
        missing_N = np.maximum(1 - (room_N - assigned_EN[e + 1 :].sum(0)), 0)
        order_N = np.argsort(-(value_EN[e] - 0.1 * missing_N), kind="stable")
        wishes = [n for n in order_N if room_N[n] > 0]
        sets = [
            places  # In ascending order, as `combinations` has them.
            for places in itertools.combinations(range(len(wishes)), k)
            if is_completable(_taken(room_N, [wishes[i] for i in places]), k, experts - e - 1)
        ]
        best = min(sets)
        taken_EN[e, [wishes[i] for i in best]] = True
        room_N = room_N - taken_EN[e]
    return taken_EN


def _taken(room_N: np.ndarray, picks: list[int]) -> np.ndarray:
    rest_N = room_N.copy()
    rest_N[picks] -= 1
    return rest_N
