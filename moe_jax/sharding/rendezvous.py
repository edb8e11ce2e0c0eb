"""A roll call of the processes of a run, before JAX connects them.

`jax.distributed.initialize` waits for processes that do not come and then aborts the interpreter
from C++ without saying which are missing (jax 0.10). So they meet here first, over plain TCP on
the coordinator's own port, which is free until JAX starts: process 0 listens, the others say who
they are, and after the time-out every one of them learns who did not come.
"""

import contextlib
import json
import selectors
import socket
import sys
import time
from typing import Any

from moe_jax.errors import UserError
from moe_jax.sharding.coordinator_address import ANY, bind_address, listen, split_address

_MAGIC = "moe-jax roll call"
# The most that a caller says of itself, and that process 0 says of all.
_CALL_BYTES, _ANSWER_BYTES = 4096, 1 << 20
# Connections that have not said yet who they are; for one more, the oldest is dropped.
_MOST_WAITING = 256
# Seconds between two tries to reach process 0, and that one message may take.
_RETRY = 0.2
_PATIENCE = 5.0


def meet(address: str, processes: int, process: int, timeout: float) -> list[str]:
    """Waits until all processes are there; returns their host names in order.

    Args:
        address: HOST:PORT of process 0.
        processes: how many there are.
        process: which this is.
        timeout: seconds to wait.

    Raises:
        UserError: naming the processes that did not come, on all that did.
    """
    host, port = split_address(address)
    if process:
        return _report(host, port, processes, process, timeout)
    callers: dict[int, socket.socket] = {}
    hosts = {0: socket.gethostname()}
    own = bind_address(address)
    if split_address(own)[0] in ANY:
        _say(f"process 0 listens on all addresses of {hosts[0]} until the run ends ({own})")
    with listen(own) as server:
        roll = _RollCall(processes, callers, hosts)
        problem = roll.take(server, time.monotonic() + timeout)
    if problem is None and len(hosts) < processes:
        problem = _absent(processes, hosts, timeout)
    names = [hosts.get(index, "") for index in range(processes)]
    for caller in callers.values():
        with contextlib.suppress(OSError), caller:
            caller.settimeout(_PATIENCE)
            _send(caller, {"hosts": names, "problem": problem})
            # The caller closes first, so that the port is free at once for JAX.
            caller.recv(1)
    if problem is not None:
        raise UserError(problem)
    return names


def _say(line: str) -> None:
    print(f"moe-jax: {line}", file=sys.stderr)


class _RollCall:
    """Takes calls, of strangers too: none of them can keep the others waiting, or end the run.

    Args:
        processes: how many are expected.
        callers: gets the connections of those that came.
        hosts: gets their host names.
    """

    def __init__(self, processes: int, callers: dict[int, socket.socket], hosts: dict[int, str]):
        self._processes, self._callers, self._hosts = processes, callers, hosts
        # What each connection has sent, and when it must have said who it is.
        self._heard: dict[socket.socket, tuple[bytearray, float]] = {}

    def take(self, server: socket.socket, deadline: float) -> str | None:
        """Takes calls until all are there or the time is over; returns a problem if there is one.

        Args:
            server: listens.
            deadline: by the monotonic clock.
        """
        server.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            try:
                while (left := deadline - time.monotonic()) > 0:
                    if len(self._hosts) == self._processes:
                        return None
                    for key, _ in selector.select(min(left, _RETRY)):
                        if key.fileobj is server:
                            self._accept(server, selector)
                        elif problem := self._hear(key.fileobj, selector):  # type: ignore[arg-type]
                            return problem
                    self._drop_late(selector)
                return None
            finally:
                for caller in list(self._heard):
                    self._drop(caller, selector)

    def _accept(self, server: socket.socket, selector: selectors.BaseSelector) -> None:
        if len(self._heard) >= _MOST_WAITING:
            self._drop(next(iter(self._heard)), selector)
        with contextlib.suppress(OSError):
            caller, _ = server.accept()
            caller.setblocking(False)
            self._heard[caller] = (bytearray(), time.monotonic() + _PATIENCE)
            selector.register(caller, selectors.EVENT_READ)

    def _hear(self, caller: socket.socket, selector: selectors.BaseSelector) -> str | None:
        """Takes what a caller sends; returns a problem if it is one of ours and there is one."""
        heard, _ = self._heard[caller]
        try:
            part = caller.recv(_CALL_BYTES)
        except OSError:
            part = b""
        heard += part
        if part and b"\n" not in heard and len(heard) <= _CALL_BYTES:
            return None
        message = _message(bytes(heard.partition(b"\n")[0][:_CALL_BYTES]))
        index = message.get("process")
        if message.get("magic") != _MAGIC or type(index) is not int:
            self._drop(caller, selector)
            return None
        selector.unregister(caller)
        del self._heard[caller]
        return self._admit(caller, index, message)

    def _admit(self, caller: socket.socket, index: int, message: dict[str, Any]) -> str | None:
        hosts, processes, host = self._hosts, self._processes, _shown(message.get("host"))
        twice = index in hosts
        # The caller that makes the problem hears of it too.
        self._callers[-1 if twice else index] = caller
        if message.get("processes") != processes:
            told = _shown(message.get("processes"))
            return (
                f"process {index} ({host}) was told of {told} processes, "
                f"process 0 ({hosts[0]}) of {processes}; --num_processes must be the same for all"
            )
        if twice or not 0 < index < processes:
            return (
                f"two processes are number {index}: on {hosts[index]} and on {host}; "
                "give each its own --process_id"
                if twice
                else f"there is no process {index} ({host}) among {processes}"
            )
        hosts[index] = host
        return None

    def _drop_late(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for caller in [caller for caller, (_, until) in self._heard.items() if until < now]:
            self._drop(caller, selector)

    def _drop(self, caller: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.unregister(caller)
        del self._heard[caller]
        caller.close()


def _shown(value: object) -> str:
    """Returns what another process says, as something that can be printed."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:100])


def _report(host: str, port: int, processes: int, process: int, timeout: float) -> list[str]:
    """Calls process 0 until it answers."""
    mine = {
        "magic": _MAGIC,
        "process": process,
        "processes": processes,
        "host": socket.gethostname(),
    }
    deadline = time.monotonic() + timeout
    reason = "it does not listen"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=_PATIENCE) as caller:
                _send(caller, mine)
                # Process 0 may have begun to wait only now.
                answer = _receive(caller, time.monotonic() + timeout + _PATIENCE)
        except OSError as error:
            reason = error.strerror or str(error) or reason
            time.sleep(_RETRY)
            continue
        if answer.get("problem"):
            raise UserError(str(answer["problem"]))
        if "hosts" in answer:
            return [str(name) for name in answer["hosts"]]
        # It was there and went away: another try finds out whether it comes back.
        reason = "it went away"
        time.sleep(_RETRY)
    raise UserError(
        f"process 0 is missing: it did not answer process {process} ({mine['host']}) at "
        f"{host}:{port} within {timeout:g} seconds ({reason})"
    )


def _absent(processes: int, hosts: dict[int, str], timeout: float) -> str:
    missing = [str(index) for index in range(processes) if index not in hosts]
    shown = ", ".join(missing[:16]) + (", ..." if len(missing) > 16 else "")
    here = ", ".join(f"{index} on {host}" for index, host in sorted(hosts.items())[:8])
    plural = "processes {} are" if len(missing) > 1 else "process {} is"
    return (
        f"{plural.format(shown)} missing: {len(hosts)} of {processes} processes came within "
        f"{timeout:g} seconds ({here}{', ...' if len(hosts) > 8 else ''})"
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket, deadline: float) -> dict[str, Any]:
    """Returns the message of one line; empty for anything that is not one.

    Raises:
        OSError: if it has not come whole by the deadline.
    """
    line = bytearray()
    while b"\n" not in line and len(line) < _ANSWER_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(65536)
        if not part:
            break
        line += part
    return _message(bytes(line))


def _message(line: bytes) -> dict[str, Any]:
    """Returns a message; empty for anything that is not one."""
    # Brackets in brackets without end are a RecursionError.
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}
