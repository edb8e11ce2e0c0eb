"""Plain numpy versions of token choice and adaptive gating, for tests to compare with.

In the manner of `oracles`: from the papers, with loops, in float64, nothing of `moe_jax`.
P pools, N tokens in a pool, E experts.
"""

import dataclasses

import numpy as np
import oracles


def scores(logits: np.ndarray, kind: str) -> np.ndarray:
    """Returns softmax, sigmoid (DeepSeek-V3) or sqrt(softplus) (DeepSeek-V4) of logits."""
    logits = logits.astype(np.float64)
    if kind == "softmax":
        return oracles.softmax(logits)
    if kind == "sigmoid":
        return 1 / (1 + np.exp(-logits))
    return np.sqrt(np.log1p(np.exp(logits)))


def candidates(score_E: np.ndarray, groups: int, top_groups: int) -> list[int]:
    """Returns the experts of the best groups; a group is worth the sum of its two best."""
    size = len(score_E) // groups
    members = [list(range(g * size, (g + 1) * size)) for g in range(groups)]
    worth = [sum(sorted((score_E[e] for e in group), reverse=True)[:2]) for group in members]
    best = sorted(range(groups), key=lambda g: (-worth[g], g))[:top_groups]
    return [e for g in best for e in members[g]]


@dataclasses.dataclass
class Choice:
    """What token choice decides.

    Attributes:
        wanted: (p, n) -> the experts the token asks for, best first.
        slot: (p, n, e) -> the slot, for the choices that got one.
        weight_PNE: combine weights, 0 where there is no slot.
        dropped_share: share of the wanted choices without a slot.
    """

    wanted: dict[tuple[int, int], list[int]]
    slot: dict[tuple[int, int, int], int]
    weight_PNE: np.ndarray
    dropped_share: float


def token_choice(
    logits_PNE: np.ndarray,
    mask_PN: np.ndarray,
    *,
    k: int = 2,
    score: str = "softmax",
    normalise: bool = True,
    scale: float = 1.0,
    groups: int = 1,
    top_groups: int = 1,
    bias_E: np.ndarray | None = None,
    capacity_factor: float | None = None,
    order: str = "left_to_right",
    time_PN: np.ndarray | None = None,
    seconds_PN: np.ndarray | None = None,
) -> Choice:
    """Chooses, weighs, and hands out slots one choice after the other.

    Args:
        logits_PNE: of the router.
        mask_PN: real tokens.
        k: choices per token.
        score: how logits become scores.
        normalise: weights divided by the sum of the token's k.
        scale: factor on the weights.
        groups: of experts.
        top_groups: the token chooses from so many.
        bias_E: added to the scores for the choice only.
        capacity_factor: C = floor(n k CF / E), at least 1; n counts real tokens, from left to
            right all; None for no limit.
        order: `left_to_right`, `choices_first` or `priority`.
        time_PN: positions in rows, for `left_to_right`.
        seconds_PN: whether the token asks for its second expert (GShard).
    """
    score_PNE = scores(logits_PNE, score)
    pools, tokens, experts = score_PNE.shape
    bias_E = np.zeros(experts) if bias_E is None else np.asarray(bias_E, np.float64)
    result = Choice({}, {}, np.zeros(score_PNE.shape), 0.0)
    for p in range(pools):
        real = [n for n in range(tokens) if mask_PN[p, n]]
        requests = []
        for n in real:
            biased_E = score_PNE[p, n] + bias_E
            allowed = candidates(biased_E, groups, top_groups)
            chosen = sorted(allowed, key=lambda e, b=biased_E: (-b[e], e))[:k]
            total = sum(score_PNE[p, n, e] for e in chosen) if normalise else 1.0
            uses_all = seconds_PN is None or seconds_PN[p, n]
            result.wanted[p, n] = wanted = chosen if uses_all else chosen[:1]
            for rank, e in enumerate(wanted):
                time = n if time_PN is None else time_PN[p, n]
                place = {
                    "left_to_right": (time, n, rank),
                    "choices_first": (rank, n),
                    "priority": (rank, -score_PNE[p, n].max(), n),
                }[order]
                requests.append((place, n, e, scale * score_PNE[p, n, e] / total))
        slots = len(requests)
        if capacity_factor is not None:
            # From left to right, how many real tokens there are is not known in advance.
            known = tokens if order == "left_to_right" else len(real)
            slots = max(oracles.capacity(known * k, capacity_factor, experts), 1)
        taken = [0] * experts
        for _, n, e, weight in sorted(requests):
            if taken[e] < slots:
                result.slot[p, n, e] = taken[e]
                result.weight_PNE[p, n, e] = weight
            taken[e] += 1
    asked = sum(len(wanted) for wanted in result.wanted.values())
    result.dropped_share = 1 - len(result.slot) / max(asked, 1)
    return result


def adaptive(
    logits_PNE: np.ndarray, mask_PN: np.ndarray, threshold: float, renormalised: bool = False
) -> tuple[np.ndarray, float]:
    """Adaptive gating (Li et al. 2023): both experts if their gap is at most the threshold.

    Returns:
        the weights [P, N, E], raw probabilities (eq. 3), and the balance loss (eq. 4).
    """
    probability_PNE = oracles.softmax(logits_PNE)
    pools, tokens, experts = probability_PNE.shape
    weight = np.zeros(probability_PNE.shape)
    alone, mean_p, real = np.zeros(experts), np.zeros(experts), 0
    for p, n in np.ndindex(pools, tokens):
        if not mask_PN[p, n]:
            continue
        p_E = probability_PNE[p, n]
        i, j = sorted(range(experts), key=lambda e, p_E=p_E: (-p_E[e], e))[:2]
        gap = p_E[i] - p_E[j]
        if renormalised:
            gap /= p_E[i] + p_E[j]
        weight[p, n, i] = p_E[i]
        if gap <= threshold:
            weight[p, n, j] = p_E[j]
        else:
            alone[i] += 1
        mean_p += p_E
        real += 1
    if not alone.any():
        return weight, 0.0
    return weight, float(experts * (alone / alone.sum() * mean_p / real).sum())


def balanced_table(frequencies: list[int], experts: int) -> list[int]:
    """Returns the expert of each id: the most frequent first, to the least loaded expert.

    Ties go to the lower id; to the expert with fewer ids, then to the lower expert.
    """
    table, load, ids = [0] * len(frequencies), [0] * experts, [0] * experts
    for token in sorted(range(len(frequencies)), key=lambda i: (-frequencies[i], i)):
        e = min(range(experts), key=lambda e: (load[e], ids[e], e))
        table[token] = e
        load[e] += frequencies[token]
        ids[e] += 1
    return table
