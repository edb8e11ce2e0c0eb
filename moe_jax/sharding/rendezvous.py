"""A roll call of the processes of a run, before JAX connects them.

`jax.distributed.initialize` waits for processes that do not come and then aborts the interpreter
from C++ without saying which are missing (jax 0.10). So they meet here first, over plain TCP on
the coordinator's own port, which is free until JAX starts: process 0 listens, the others say who
they are, and after the time-out every one of them learns who did not come.
"""

import contextlib
import json
import socket
import time
from typing import Any

from moe_jax.errors import UserError

_MAGIC = "moe-jax roll call"
_LINE_BYTES = 65536
# Seconds between two tries to reach process 0, and that one message may take.
_RETRY = 0.2
_PATIENCE = 5.0


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of HOST:PORT.

    Raises:
        UserError: if it is something else.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UserError(f"the coordinator must be HOST:PORT, not {address!r}")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Returns whether a host name means this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


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
    with _listen(host, port) as server:
        problem = _collect(server, processes, time.monotonic() + timeout, callers, hosts)
    if problem is None and len(hosts) < processes:
        problem = _absent(processes, hosts, timeout)
    names = [hosts.get(index, "") for index in range(processes)]
    for caller in callers.values():
        with contextlib.suppress(OSError), caller:
            _send(caller, {"hosts": names, "problem": problem})
            # The caller closes first, so that the port is free at once for JAX.
            caller.recv(1)
    if problem is not None:
        raise UserError(problem)
    return names


def _listen(host: str, port: int) -> socket.socket:
    try:
        if is_loopback(host):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family, backlog=1024)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=1024, dualstack_ipv6=True
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on {host}:{port}: {error.strerror or error}; "
            "is another run using the port, or is the coordinator's host not this machine?"
        ) from None


def _collect(
    server: socket.socket,
    processes: int,
    deadline: float,
    callers: dict[int, socket.socket],
    hosts: dict[int, str],
) -> str | None:
    """Takes calls until all are there or the time is over; returns a problem, if there is one."""
    while len(hosts) < processes and (left := deadline - time.monotonic()) > 0:
        server.settimeout(left)
        try:
            caller, _ = server.accept()
            caller.settimeout(min(_PATIENCE, max(left, 0.1)))
            message = _receive(caller)
        except OSError:
            continue
        if message.get("magic") != _MAGIC or not isinstance(message.get("process"), int):
            caller.close()
            continue
        index, host = message["process"], str(message.get("host"))
        twice = index in hosts
        # The caller that makes the problem hears of it too.
        callers[-1 if twice else index] = caller
        if message.get("processes") != processes:
            return (
                f"process {index} ({host}) was told of {message.get('processes')} processes, "
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
                caller.settimeout(timeout + _PATIENCE)
                answer = _receive(caller)
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


def _receive(connection: socket.socket) -> dict[str, Any]:
    """Returns the message of one line; empty for anything that is not one."""
    with connection.makefile("rb") as file:
        line = file.readline(_LINE_BYTES * 16)
    with contextlib.suppress(ValueError):
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    return {}
