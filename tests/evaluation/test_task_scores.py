"""Settings of the scores of tasks."""

import pytest

from moe_jax.errors import UserError
from moe_jax.evaluation.task_scores import TaskScores


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match=r"TaskScores.examples must be"):
        TaskScores(examples=-1)
