"""The figures of the paper: the averages that it prints are those of its rows."""

import statistics

import pytest

from moe_jax.data.tasks.glue import EXPERT_CHOICE_TASKS
from moe_jax.finetuning.paper_results import PAPER_ROWS


@pytest.mark.parametrize("row", PAPER_ROWS, ids=lambda row: row.name)
def test_averages(row):
    assert tuple(row.scores) == EXPERT_CHOICE_TASKS
    mean = statistics.mean(row.scores.values())
    if row.name == "100M, 32 experts: GShard top-2":  # 83.5 in the paper, 82.95 of its row.
        assert (row.average, round(mean, 2)) == (83.5, 82.95)
    else:
        assert abs(row.average - mean) <= 0.1
