"""What the routers' table in the documentation says beside what the routers say themselves."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Description:
    """One line of the table.

    Attributes:
        rule: who goes where, with which weight.
        source: paper and equation or section.
        balanced: how the load is balanced.
    """

    rule: str
    source: str
    balanced: str


DESCRIPTIONS: dict[str, Description] = {
    "expert_choice": Description(
        "each expert takes its k = N c / E best tokens; weight p",
        "Zhou et al. 2022, eq. 1-4",
        "always, by construction",
    ),
    "expert_choice_capped": Description(
        "as expert choice, by TopK of the entropy-regularised assignment A, at most b experts a "
        "token, repaired so that both hold exactly; weight p",
        "Zhou et al. 2022, section 3.3",
        "always, by construction",
    ),
    "expert_threshold": Description(
        "every expert with p >= its threshold, the moving average of its k-th best score; weight p",
        "arXiv 2603.11535, algorithm 1",
        "as far as thresholds are right",
    ),
    "switch": Description(
        "the best expert; weight p; input jitter 1%",
        "Fedus et al. 2021, eq. 1-6",
        "loss (0.01)",
    ),
    "gshard_top2": Description(
        "the two best, the second with probability min(1, 2 p2); weights p / (p1 + p2); all first "
        "choices get slots before any second",
        "Lepikhin et al. 2020, algorithm 1",
        "loss on first choices (0.01)",
    ),
    "glam_top2": Description(
        "the two best; weights p / (p1 + p2); slots in GShard's order",
        "Du et al. 2022, section 4 (Praxis)",
        "loss on first choices (0.01)",
    ),
    "topk": Description(
        "the k best; weights p / (sum of the chosen p); options: sigmoid scores, raw weights, bias "
        "or quantile balance, groups of experts, capacity, priority",
        "Shazeer et al. 2017, section 2.1",
        "loss (0.01), bias or quantiles",
    ),
    "adaptive": Description(
        "the best two if p1 - p2 <= T, else the best alone; weights p",
        "Li et al. 2023, eq. 2-4",
        "loss on one-expert tokens (0.01)",
    ),
    "hash": Description(
        "a function of the token's id: id mod E, a random table, or one balanced by frequency; "
        "weight 1",
        "Roller et al. 2021, section 3.1",
        "as the ids are",
    ),
    "random": Description("k at random; weight 1 / k", "Zuo et al. 2021, section 3", "on average"),
    "forced_balanced": Description("token n takes n k, ... (mod E); weight 1 / k", "-", "exactly"),
    "thor": Description(
        "one at random for a layer and pass; two passes, whose predictions must agree; weight 1",
        "Zuo et al. 2021, eq. 4-5",
        "over many steps",
    ),
}
