"""Work on another thread."""

import threading

import pytest

from moe_jax.runs.background import Background


def test_the_work_goes_on_beside_this_thread_and_its_result_comes_back():
    started, may_end = threading.Event(), threading.Event()

    def work():
        started.set()
        assert may_end.wait(10)
        return threading.current_thread()

    with Background(work) as background:
        assert started.wait(10)  # Nobody has asked for the result yet.
        may_end.set()
        assert background.result() is not threading.current_thread()


def test_what_the_work_raises_is_raised_where_its_result_is_asked_for():
    with Background(lambda: 1 // 0) as background, pytest.raises(ZeroDivisionError):
        background.result()


def test_it_is_not_left_behind_when_something_fails_beside_it():
    may_end, ended = threading.Event(), threading.Event()

    def work():
        may_end.wait(10)
        ended.set()

    def fail_beside_it():
        with Background(work):
            may_end.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_beside_it()
    assert ended.is_set()
