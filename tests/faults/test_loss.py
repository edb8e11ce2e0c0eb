"""Losses that are not numbers: one is skipped, many stop the run."""

import math

import cases
import pytest
from harness import STEPS
from on_disk import evaluation, records


@pytest.mark.slow
def test_one_bad_loss_is_skipped(home):
    case = cases.spike(home)
    assert case.ended.code == 0, case.ended
    skipped = {r["step"]: r["skipped"] for r in records(case.ended.directory, "train")}
    assert {step for step, value in skipped.items() if value} == {6}
    assert case.reached == STEPS
    # The update is left out: all before is as without the fault, all after is finite.
    assert math.isfinite(evaluation(case.ended.directory)["loss"])
    assert not case.same


@pytest.mark.slow
def test_many_bad_losses_stop_the_run_in_one_line(home):
    case = cases.diverged(home)
    assert case.ended.code == 1
    assert case.ended.err.count("\n") == 1
    assert "skipped" in case.ended.line
    assert case.resumed.code == 0, case.resumed
    assert math.isfinite(evaluation(case.resumed.directory)["loss"])
