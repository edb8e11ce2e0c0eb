"""A run that is ended from outside loses at most the steps since its last save.

The run without a fault is shared by all. `cases.py` says how each fault is made.
"""

import re

import cases
import pytest
from harness import EVERY, STEPS
from tiers import slow


def goes_on(case):
    """Checks the second run of the command."""
    assert case.resumed.code == 0, case.resumed
    assert case.resumed.went_on_from == case.saved
    assert case.same


@pytest.mark.parametrize(("fault", "code"), [(cases.sigterm, 143), slow(cases.sigint, 130)])
def test_a_signal_saves_the_step_it_finishes(home, fault, code):
    case = fault(home)
    assert case.ended.code == code
    assert f"Stopped and saved at step {case.saved} of {STEPS}" in case.ended.line
    assert "To go on, run the same command again" in case.ended.out
    assert case.ended.err == ""
    assert case.reached == case.saved
    goes_on(case)


@pytest.mark.slow
def test_a_notice_of_preemption_saves_like_a_signal(home):
    case = cases.preempted(home)
    assert case.ended.code == 143
    assert "the cloud is pre-empting this machine" in case.ended.out
    assert f"Stopped and saved at step {case.saved} of {STEPS}" in case.ended.line
    assert case.reached == case.saved
    goes_on(case)


def killed(case):
    """Checks the end and what came after it."""
    assert case.ended.code == -9
    # A save ends while the next steps are under way.
    assert case.reached - case.saved <= 2 * EVERY
    goes_on(case)
    assert "is taken over from process" in case.resumed.out
    assert not (case.ended.directory / "owner.json").exists()


@pytest.mark.slow
def test_a_kill_in_a_save_loses_what_was_not_saved_yet(home):
    case = cases.killed_in_save(home)
    killed(case)
    assert "cannot be inspected" not in case.resumed.out


@pytest.mark.slow
def test_one_directory_takes_one_training_and_a_killed_one_is_taken_over(home):
    """On this machine and, according to the lock file, on another one."""
    case = cases.killed(home)
    for refused in case.refused:
        assert refused.code == 1, refused
        assert re.search(r"is in use by process \d+ on .*, since 20", refused.line)
        assert refused.err.count("\n") == 1
    here, elsewhere = case.refused
    assert "cannot be inspected from here" in elsewhere.out
    assert here.out == ""
    killed(case)
    assert "cannot be inspected from here" in case.resumed.out


@pytest.mark.slow
def test_a_kill_after_a_save_leaves_the_record_whole(home):
    """At any moment after step 8 is saved, its record is there, too."""
    case = cases.killed_after_save(home)
    assert case.saved >= 8
    assert not case.unrecorded
    goes_on(case)


@pytest.mark.slow
def test_a_hang_ends_with_the_code_for_another_try(home):
    case = cases.source_hangs(home)
    assert case.ended.code == 75
    assert "taken for hung" in case.ended.line
    assert f"the last checkpoint is step {case.saved}" in case.ended.line
    (stacks,) = case.ended.directory.glob("hang-0-*.txt")
    assert str(stacks) in case.ended.line
    assert "faults_inside.py" in stacks.read_text()
    goes_on(case)


@pytest.mark.slow
def test_data_that_fail_are_named_in_one_line(home):
    case = cases.source_fails(home)
    assert case.ended.code == 1
    assert "the disk with the data went away" in case.ended.line
    assert case.ended.err.count("\n") == 1
    # Seven steps were done; of those saved, none is lost.
    assert case.saved == 6
    goes_on(case)
