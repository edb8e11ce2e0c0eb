"""A rendezvous of the processes of a run, before JAX connects them.

`jax.distributed.initialize` waits for missing processes and then aborts the interpreter from C++
without naming them (jax 0.10). The processes therefore meet here first, over plain TCP on the
coordinator's own port, which is free until JAX starts: process 0 listens, the others register, and
after the timeout every process that has registered is told which ones are missing.
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
# Size limits of the registration of a process, and of the response of process 0.
_REQUEST_BYTES, _RESPONSE_BYTES = 4096, 1 << 20
# The most connections that have not registered yet; for one more, the oldest is dropped.
_MAX_UNREGISTERED = 256
# Seconds between two attempts to reach process 0, and the time limit of one message.
_RETRY = 0.2
_MESSAGE_SECONDS = 5.0


def wait_for_processes(address: str, processes: int, process: int, timeout: float) -> list[str]:
    """Waits until all processes have registered; returns their host names in order.

    Args:
        address: HOST:PORT of process 0.
        processes: number of processes.
        process: index of this process.
        timeout: seconds to wait.

    Raises:
        UserError: on every registered process, naming the missing ones.
    """
    host, port = split_address(address)
    if process:
        return _register(host, port, processes, process, timeout)
    connections: dict[int, socket.socket] = {}
    hosts = {0: socket.gethostname()}
    bound = bind_address(address)
    if split_address(bound)[0] in ANY:
        _print(f"process 0 listens on all addresses of {hosts[0]} until the run ends ({bound})")
    with listen(bound) as server:
        registry = _Registry(processes, connections, hosts)
        problem = registry.accept_all(server, time.monotonic() + timeout)
    if problem is None and len(hosts) < processes:
        problem = _describe_missing(processes, hosts, timeout)
    names = [hosts.get(index, "") for index in range(processes)]
    for caller in connections.values():
        with contextlib.suppress(OSError), caller:
            caller.settimeout(_MESSAGE_SECONDS)
            _send(caller, {"hosts": names, "problem": problem})
            # The caller closes first, so that the port is immediately free for JAX.
            caller.recv(1)
    if problem is not None:
        raise UserError(problem)
    return names


def _print(line: str) -> None:
    print(f"moe-jax: {line}", file=sys.stderr)


class _Registry:
    """Registers processes; connections of strangers can neither delay nor end the rendezvous.

    Args:
        processes: number of expected processes.
        connections: receives the connections of registered processes.
        hosts: receives their host names.
    """

    def __init__(
        self, processes: int, connections: dict[int, socket.socket], hosts: dict[int, str]
    ):
        self._processes, self._connections, self._hosts = processes, connections, hosts
        # The bytes that each unregistered connection has sent, and its deadline.
        self._received: dict[socket.socket, tuple[bytearray, float]] = {}

    def accept_all(self, server: socket.socket, deadline: float) -> str | None:
        """Accepts registrations until all processes have registered or the deadline has passed.

        Args:
            server: the listening socket.
            deadline: by the monotonic clock.

        Returns:
            the description of a problem, or None.
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
                        elif problem := self._read_request(key.fileobj, selector):  # type: ignore[arg-type]
                            return problem
                    self._drop_expired(selector)
                return None
            finally:
                for caller in list(self._received):
                    self._drop(caller, selector)

    def _accept(self, server: socket.socket, selector: selectors.BaseSelector) -> None:
        if len(self._received) >= _MAX_UNREGISTERED:
            self._drop(next(iter(self._received)), selector)
        with contextlib.suppress(OSError):
            caller, _ = server.accept()
            caller.setblocking(False)
            self._received[caller] = (bytearray(), time.monotonic() + _MESSAGE_SECONDS)
            selector.register(caller, selectors.EVENT_READ)

    def _read_request(self, caller: socket.socket, selector: selectors.BaseSelector) -> str | None:
        """Receives from a connection; returns a problem with the registration of a process."""
        received, _ = self._received[caller]
        try:
            part = caller.recv(_REQUEST_BYTES)
        except OSError:
            part = b""
        received += part
        if part and b"\n" not in received and len(received) <= _REQUEST_BYTES:
            return None
        message = _parse(bytes(received.partition(b"\n")[0][:_REQUEST_BYTES]))
        index = message.get("process")
        if message.get("magic") != _MAGIC or type(index) is not int:
            self._drop(caller, selector)
            return None
        selector.unregister(caller)
        del self._received[caller]
        return self._add(caller, index, message)

    def _add(self, caller: socket.socket, index: int, message: dict[str, Any]) -> str | None:
        hosts, processes, host = self._hosts, self._processes, _printable(message.get("host"))
        twice = index in hosts
        # The process that causes the problem is told, too.
        self._connections[-1 if twice else index] = caller
        if message.get("processes") != processes:
            told = _printable(message.get("processes"))
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

    def _drop_expired(self, selector: selectors.BaseSelector) -> None:
        now = time.monotonic()
        for caller in [caller for caller, (_, until) in self._received.items() if until < now]:
            self._drop(caller, selector)

    def _drop(self, caller: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.unregister(caller)
        del self._received[caller]
        caller.close()


def _printable(value: object) -> str:
    """Returns a value sent by another process as a short printable string."""
    return "".join(c if c.isprintable() else "?" for c in str(value)[:100])


def _register(host: str, port: int, processes: int, process: int, timeout: float) -> list[str]:
    """Registers with process 0, retrying until it responds."""
    request = {
        "magic": _MAGIC,
        "process": process,
        "processes": processes,
        "host": socket.gethostname(),
    }
    deadline = time.monotonic() + timeout
    reason = "it does not listen"
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=_MESSAGE_SECONDS) as caller:
                _send(caller, request)
                # Process 0 may have started to wait only now.
                response = _receive(caller, time.monotonic() + timeout + _MESSAGE_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error) or reason
            time.sleep(_RETRY)
            continue
        if response.get("problem"):
            raise UserError(str(response["problem"]))
        if "hosts" in response:
            return [str(name) for name in response["hosts"]]
        # It has disconnected: another attempt finds out whether it comes back.
        reason = "it went away"
        time.sleep(_RETRY)
    raise UserError(
        f"process 0 is missing: it did not answer process {process} ({request['host']}) at "
        f"{host}:{port} within {timeout:g} seconds ({reason})"
    )


def _describe_missing(processes: int, hosts: dict[int, str], timeout: float) -> str:
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
    """Receives a message of one line; returns an empty one for anything else.

    Raises:
        OSError: if it is incomplete at the deadline.
    """
    line = bytearray()
    while b"\n" not in line and len(line) < _RESPONSE_BYTES:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(65536)
        if not part:
            break
        line += part
    return _parse(bytes(line))


def _parse(line: bytes) -> dict[str, Any]:
    """Parses a message; returns an empty one for anything else."""
    # Deeply nested brackets raise a RecursionError.
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}
