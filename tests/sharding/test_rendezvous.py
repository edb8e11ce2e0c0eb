"""The rendezvous of processes before JAX connects them, in threads."""

import contextlib
import socket
import threading

import pytest

from moe_jax.errors import UserError
from moe_jax.sharding import rendezvous


def call_roll(timeout, *members):
    """Runs `wait_for_processes` for (process, processes) in threads; returns the results."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    results = [None] * len(members)

    def run(slot, process, count):
        try:
            results[slot] = rendezvous.wait_for_processes(address, count, process, timeout)
        except UserError as error:
            results[slot] = str(error)

    threads = [threading.Thread(target=run, args=(i, *m)) for i, m in enumerate(members)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def test_everybody_comes():
    host = socket.gethostname()
    assert call_roll(20, (2, 3), (0, 3), (1, 3)) == [[host] * 3] * 3


def test_all_that_came_learn_who_did_not():
    found = call_roll(1, (0, 4), (2, 4))
    assert found[0] == found[1]
    assert "processes 1, 3 are missing: 2 of 4 processes came within 1 seconds" in found[0]


def test_a_missing_coordinator_is_named():
    (found,) = call_roll(0.5, (1, 2))
    assert "process 0 is missing: it did not answer process 1" in found
    assert "within 0.5 seconds" in found


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (((0, 2), (1, 3)), "was told of 3 processes, process 0"),
        (((0, 3), (1, 3), (1, 3)), "two processes are number 1"),
        (((0, 2), (5, 2)), "there is no process 5"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(members, message):
    found = call_roll(5, *members)
    assert message in found[0]
    assert message in found[1] or message in found[-1]


STRANGERS = {
    "another protocol": b"GET / HTTP/1.0\r\n\r\n",
    "no text": b"\xff\xfe\x00\n",
    "brackets": b"[" * 4000 + b"\n",
    "other JSON": b'{"process": 1, "processes": 2}\n',
    "no number": b'{"magic": "moe-jax roll call", "process": true, "processes": 2}\n',
    "no end": b"x" * 100_000,
    "nothing": b"",
}


@pytest.mark.parametrize("stranger", ["leaves", "stays"])
def test_strangers_neither_end_the_roll_call_nor_hold_it_up(stranger, monkeypatch):
    """Those that stay say no more, which must not keep the others waiting."""
    monkeypatch.setattr(rendezvous, "_MAX_UNREGISTERED", 4)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []
    thread = threading.Thread(
        target=lambda: found.append(rendezvous.wait_for_processes(f"127.0.0.1:{port}", 2, 0, 20))
    )
    thread.start()
    open_ones = []
    for text in STRANGERS.values():
        open_ones.append(connected(port))
        # It may be dropped while it still talks.
        with contextlib.suppress(OSError):
            open_ones[-1].sendall(text)
        if stranger == "leaves":
            open_ones[-1].close()
    rendezvous.wait_for_processes(f"127.0.0.1:{port}", 2, 1, 20)
    thread.join(20)
    assert found == [[socket.gethostname()] * 2]
    for connection in open_ones:
        connection.close()


def connected(port):
    """Returns a connection to a port that something is about to listen on."""
    for _ in range(400):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            threading.Event().wait(0.02)
    raise AssertionError("nobody listens")


def test_a_stranger_that_keeps_talking_is_dropped(monkeypatch):
    """Process 0 gives up in time, though somebody sends a byte now and then."""
    monkeypatch.setattr(rendezvous, "_MESSAGE_SECONDS", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    found = []

    def zero():
        try:
            rendezvous.wait_for_processes(f"127.0.0.1:{port}", 2, 0, 2)
        except UserError as error:
            found.append(str(error))

    thread = threading.Thread(target=zero)
    thread.start()
    dropped = False
    with connected(port) as stranger:
        for _ in range(100):
            try:
                stranger.sendall(b"x")
            except OSError:
                dropped = True
                break
            threading.Event().wait(0.02)
    thread.join(20)
    assert dropped
    assert "process 1 is missing" in found[0]


def test_a_coordinator_that_answers_nonsense_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as caller:
                        caller.recv(4096)
                        caller.sendall(b"[" * 100_000 + b"\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(UserError, match="process 0 is missing") as error:
            rendezvous.wait_for_processes(f"127.0.0.1:{server.getsockname()[1]}", 2, 1, 0.5)
        assert "\n" not in str(error.value)
