"""Names and numbers as texts."""

import math

import pytest

from moe_jax.compare.results import Estimate
from moe_jax.finetuning.words import interval, percent, short_task


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("glue_sst2_v002", "SST-2"),
        ("super_glue_boolq_v102", "BoolQ"),
        ("super_glue_wsc_v102_simple_eval", "WSC"),
        ("glue_mnli_mismatched_v002", "mnli mismatched"),
        ("my_own_task", "my own task"),
    ],
)
def test_tasks(task, name):
    assert short_task(task) == name


def test_numbers():
    assert (percent(82.04), percent(None), percent(math.nan)) == ("82.0", "-", "-")
    assert interval(Estimate(1.0, 0.5, 1.5, 3)) == "[0.5, 1.5]"
    assert interval(Estimate(1.0, None, None, 1)) == ""
