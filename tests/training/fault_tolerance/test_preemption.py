"""Preemption notices, from a metadata server on this machine."""

import threading

import pytest
from metadata_server import MetadataServer

from moe_jax.training.fault_tolerance.preemption import (
    MAINTENANCE,
    PREEMPTED,
    VARIABLE,
    PreemptionNotice,
)

TERMINATE = "TERMINATE_ON_HOST_MAINTENANCE"


class Notices(list):
    """The notices received, and an event for the first."""

    def __init__(self):
        super().__init__()
        self.received = threading.Event()

    def __call__(self, sentence):
        self.append(sentence)
        self.received.set()


@pytest.fixture
def server():
    server = MetadataServer()
    yield server
    server.close()
    for thread in watchers():
        thread.join(30)


@pytest.fixture
def notices():
    return Notices()


def watchers():
    return [t for t in threading.enumerate() if t.name.startswith("notice of")]


def test_preemption_is_told_once(server, notices):
    with PreemptionNotice(notices, server.url) as notice:
        assert notice.reason is None
        server.set(PREEMPTED, "TRUE")
        assert notices.received.wait(30)
        server.set(MAINTENANCE, TERMINATE)
    assert notices == ["the cloud is pre-empting this machine"]
    assert notice.reason == notices[0]
    assert {flavor for *_, flavor in server.asked} == {"Google"}


def test_a_host_that_stops_is_told(server, notices, monkeypatch):
    monkeypatch.setenv(VARIABLE, server.url)
    with PreemptionNotice(notices):
        server.set(MAINTENANCE, TERMINATE)
        assert notices.received.wait(30)
    assert notices == ["the cloud is stopping this machine's host"]


def test_a_live_migration_is_let_pass(server, notices):
    with PreemptionNotice(notices, server.url):
        server.set(MAINTENANCE, "MIGRATE_ON_HOST_MAINTENANCE")
        server.waiting[MAINTENANCE].clear()
        server.set(MAINTENANCE, TERMINATE)
        assert notices.received.wait(30)
    assert notices == ["the cloud is stopping this machine's host"]


def test_a_machine_already_preempted_is_told(server, notices):
    server.values[PREEMPTED] = "TRUE"
    with PreemptionNotice(notices, server.url):
        assert notices.received.wait(30)


def test_maintenance_that_stands_at_the_start_is_no_notice(server, notices):
    server.values[MAINTENANCE] = TERMINATE
    with PreemptionNotice(notices, server.url):
        server.set(MAINTENANCE, "NONE")
        server.waiting[MAINTENANCE].clear()
        assert not notices
        server.set(MAINTENANCE, TERMINATE)
        assert notices.received.wait(30)


def test_a_server_that_fails_for_a_while_is_asked_again(server, notices):
    server.failures = 4
    with PreemptionNotice(notices, server.url, retry_seconds=0.01):
        server.set(PREEMPTED, "TRUE")
        assert notices.received.wait(30)
    assert server.failures == 0


def test_an_error_in_the_callback_goes_no_further(server):
    called = threading.Event()

    def broken(sentence):
        called.set()
        raise RuntimeError(sentence)

    with PreemptionNotice(broken, server.url):
        before = watchers()
        server.set(PREEMPTED, "TRUE")
        assert called.wait(30)
        for thread in before:
            if thread.name.endswith(PREEMPTED):
                thread.join(30)
                assert not thread.is_alive()


@pytest.mark.parametrize("url", ["", "http://127.0.0.1:9/computeMetadata/v1", "nonsense"])
def test_it_is_off_where_no_server_answers(notices, url):
    with PreemptionNotice(notices, url):
        for thread in watchers():
            thread.join(30)
        assert not watchers()
    assert not notices


def test_another_server_at_that_address_is_not_asked_again(server, notices):
    server.flavor = "Other"
    server.values[PREEMPTED] = "TRUE"
    with PreemptionNotice(notices, server.url):
        for thread in watchers():
            thread.join(30)
        assert not watchers()
    assert not notices
    assert len(server.asked) == 2
