"""Full, missing and faulty disks: the run reports them and resumes from a good checkpoint."""

import re

import disk_cases as cases
import pytest
from harness import STEPS


@pytest.mark.slow
@pytest.mark.parametrize("fault", [cases.flipped, cases.truncated, cases.deleted])
def test_a_damaged_checkpoint_is_left_for_the_one_before(home, fault):
    case = fault(home)
    assert case.ended.code == 0, case.ended
    said = re.search(
        r"checkpoint (\d+) is damaged \(.+\): going on from step (\d+)", case.ended.line
    )
    assert said, case.ended
    assert int(said[1]) == case.reached
    assert int(said[2]) == case.saved
    assert case.same


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line(home):
    case = cases.full_disk(home)
    assert case.ended.code == 1
    assert re.search("the disk has no space left|File too large", case.ended.line)
    assert "Traceback" not in case.ended.err
    assert case.saved >= 4
    assert case.resumed.code == 0, case.resumed
    assert case.resumed.went_on_from == case.saved
    assert case.same


@pytest.mark.slow
def test_a_directory_that_goes_away_is_said_in_one_line(home):
    case = cases.vanished(home)
    assert case.ended.code == 1
    assert re.search("gone|vanished|No such file", case.ended.line), case.ended
    # Not to the end, with nowhere to save to.
    assert case.reached < STEPS
    assert "Traceback" not in case.ended.err
    assert case.saved >= 4
    assert case.resumed.code == 0, case.resumed
    assert case.resumed.went_on_from == case.saved
    assert case.same
