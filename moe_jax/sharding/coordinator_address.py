"""The coordinator's address: what is listened on, which is as little as will do."""

import contextlib
import os
import socket

from moe_jax.errors import UserError

# What JAX calls it.
BIND_VARIABLE = "JAX_COORDINATOR_BIND_ADDRESS"
# All addresses of a machine.
ANY = ("::", "0.0.0.0")


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


def bind_address(address: str) -> str:
    """Returns HOST:PORT on which process 0 listens: the coordinator's own address, and no other.

    `JAX_COORDINATOR_BIND_ADDRESS` is taken instead where it is set: for a coordinator whose address
    is translated on the way, as that of a container is. A name that means only this machine on this
    machine, and another address elsewhere, leaves no choice but to listen on all.

    Raises:
        UserError: if the coordinator's host is unknown or has no address on this machine.
    """
    if given := os.environ.get(BIND_VARIABLE):
        split_address(given)
        return given
    host, port = split_address(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UserError(f"the coordinator's host {host} is unknown: {error.strerror}") from None
    addresses = list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
    outer = [name for name in addresses if not is_loopback(name)]
    if not outer and not is_loopback(host):
        # As Debian's /etc/hosts has it. The other machines know another address, and which it is
        # nothing here says: the one case in which all have to do.
        return f"[::]:{port}" if socket.has_dualstack_ipv6() else f"0.0.0.0:{port}"
    for name in outer or addresses:
        if _is_ours(name):
            return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    raise UserError(
        f"process 0 cannot listen on {host}:{port}: {', '.join(outer or addresses)} is not an "
        "address of this machine. Is process 0 on another host? Where the address is translated, "
        f"as a container's is, set {BIND_VARIABLE}=0.0.0.0:{port}"
    )


def _is_ours(name: str) -> bool:
    """Returns whether an address is one of this machine's."""
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((name, 0))
        return True
    return False


def listen(address: str) -> socket.socket:
    """Returns a socket that listens on HOST:PORT.

    Raises:
        UserError: if the port is taken.
    """
    host, port = split_address(address)
    both = host == "::" and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen on {address}: {error.strerror or error}; "
            "is another run using the port?"
        ) from None
