"""The fine-tuning results of Zhou et al. 2022 (arXiv 2202.09368), tables 2 to 4: dev accuracy.

The paper does not say how the averages were rounded; that of GShard's 32 experts (83.5) is not the
mean of its row, which is 82.95.
"""

import dataclasses
from collections.abc import Mapping

from moe_jax.data.tasks.glue.mixtures import EXPERT_CHOICE_TASKS

_ROUTERS = ("Switch top-1", "GShard top-2", "expert choice")


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of a table of the paper.

    Attributes:
        name: size and router.
        scores: accuracy in percent, by full name of the task.
        average: the average that the paper gives.
    """

    name: str
    scores: Mapping[str, float]
    average: float


# Three routers for each size, in the order of the tasks; the last number is the paper's average.
_TABLES: dict[str, tuple[tuple[float, ...], ...]] = {
    "100M, 128 experts": (
        (77.4, 87.5, 78.9, 82.3, 82.6, 89.5, 90.6, 77.0, 92.0, 67.8, 65.6, 81.0),
        (76.5, 80.9, 84.0, 83.6, 81.0, 88.6, 90.3, 78.9, 94.5, 65.5, 70.3, 81.3),
        (76.9, 89.1, 86.7, 84.9, 83.1, 89.0, 90.4, 78.5, 94.6, 68.1, 67.2, 82.6),
    ),
    "100M, 64 experts": (
        (73.2, 85.9, 64.1, 80.8, 81.3, 89.4, 88.9, 74.1, 91.8, 64.4, 68.8, 78.4),
        (77.5, 84.4, 85.2, 85.2, 81.3, 89.7, 90.5, 79.3, 95.1, 67.8, 68.8, 82.2),
        (79.7, 89.1, 88.3, 86.7, 84.4, 91.3, 91.0, 81.6, 95.1, 65.6, 71.7, 84.0),
    ),
    "100M, 32 experts": (
        (74.5, 80.6, 87.5, 83.1, 82.3, 91.6, 90.1, 75.0, 93.3, 62.5, 65.6, 80.6),
        (79.0, 81.3, 92.2, 87.8, 85.2, 91.9, 91.5, 79.1, 94.4, 65.9, 64.1, 83.5),
        (79.3, 92.2, 93.8, 88.0, 84.4, 92.5, 92.0, 78.1, 95.4, 69.8, 68.8, 85.0),
    ),
    "8B, 64 experts": (
        (89.1, 93.8, 88.3, 90.7, 89.3, 94.5, 92.1, 91.0, 97.1, 74.5, 78.1, 88.9),
        (89.5, 96.7, 87.5, 91.4, 91.7, 94.9, 92.5, 92.2, 98.0, 76.4, 82.8, 90.3),
        (89.2, 100.0, 89.1, 91.1, 90.6, 95.0, 93.8, 95.2, 97.7, 83.8, 92.8, 92.6),
    ),
}
_DENSE = (88.2, 100.0, 86.4, 91.3, 86.7, 94.7, 91.2, 92.2, 97.2, 75.6, 78.1, 89.2)


def _row(name: str, values: tuple[float, ...]) -> PaperRow:
    return PaperRow(name, dict(zip(EXPERT_CHOICE_TASKS, values[:-1], strict=True)), values[-1])


PAPER_ROWS: tuple[PaperRow, ...] = (
    *(
        _row(f"{size}: {router}", values)
        for size, rows in _TABLES.items()
        for router, values in zip(_ROUTERS, rows, strict=True)
    ),
    _row("8B dense", _DENSE),
)
