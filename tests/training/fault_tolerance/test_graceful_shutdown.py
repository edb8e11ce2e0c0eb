"""Signals during training: the first is recorded, a second Ctrl-C stops immediately."""

import signal

import pytest

from moe_jax.training.fault_tolerance.graceful_shutdown import GracefulShutdown

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """Checks that every handler is restored; these tests may run under `nohup` themselves."""
    own = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = [signal.getsignal(number) for number in HANDLED]
    yield
    assert [signal.getsignal(number) for number in HANDLED] == before
    signal.signal(signal.SIGHUP, own)


@pytest.mark.parametrize("number", HANDLED, ids=str)
def test_the_first_signal_is_noted(number):
    with GracefulShutdown() as shutdown:
        assert shutdown.signal is None
        signal.raise_signal(number)
        assert shutdown.signal == number
        assert shutdown.reason is None


def test_a_second_ctrl_c_stops_at_once():
    with GracefulShutdown():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_terminal_that_was_let_go_is_ignored():
    """As under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown() as shutdown:
            signal.raise_signal(signal.SIGHUP)
            assert shutdown.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_notice_stops_like_a_sigterm_and_does_not_hide_a_signal():
    with GracefulShutdown() as shutdown:
        shutdown.request("the machine goes away")
        assert (shutdown.signal, shutdown.reason) == (signal.SIGTERM, "the machine goes away")
    with GracefulShutdown() as shutdown:
        signal.raise_signal(signal.SIGINT)
        shutdown.request("the machine goes away")
        assert (shutdown.signal, shutdown.reason) == (signal.SIGINT, None)
